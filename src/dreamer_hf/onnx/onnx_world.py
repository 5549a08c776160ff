"""An exported world, on NumPy and ONNX Runtime alone.

Shapes: B rows, C context frames, S starts, N_z latent tokens, d_z latent channels, a action width, H, W pixels.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rollout_schedule import RolloutSchedule
from ..seeded_noise import MAX_SEED, SeededNoise
from .find_export import find_export
from .graph_session import Graph, check_provider
from .manifest import Manifest, action_space
from .onnx_rollout import OnnxContext, OnnxRollout, run_tokenizer
from .onnx_starts import OnnxStarts, load_onnx_starts
from .ring import Ring, chunks

ROUNDING = 1e-4
"""How far rounding may bring a float frame outside [0, 1]."""


class OnnxWorld:
    """A world that dreams without PyTorch. Made by `from_pretrained`.

    ```python
    world = OnnxWorld.from_pretrained("my-export")
    rollout = world.start_rollout(world.starts.select([0]), generator=[SeededNoise(7)])
    frame = rollout.step(actions).pixel_values          # (1, a) raw -> (1, 3, H, W) float32 in [0, 1]
    ```

    Attributes:
        manifest: the content of `dreamer_onnx.json`.
        graphs: "dynamics", "decoder" and "encoder".
        space: the world's actions.
        fps: frame rate of the world; None if it does not know it.
        frame_size: (H, W).
        latent_shape: (N_z, d_z).
        starts: frames to start from; None if the world carries none.
    """

    def __init__(self, manifest: Manifest, graphs: dict[str, Graph], starts: OnnxStarts | None):
        self.manifest, self.graphs, self.starts = manifest, graphs, starts
        self.space = action_space(manifest.actions)
        self.fps = manifest.fps
        self.frame_size: tuple[int, int] = tuple(manifest.frame_size)
        self.latent_shape = (manifest.latents["num_tokens"], manifest.latents["dim"])
        self.schedule()  # raises if the settings are impossible

    @classmethod
    def from_pretrained(
        cls, folder_or_repo: str | os.PathLike, threads: int | None = None, provider: str = "cpu"
    ) -> OnnxWorld:
        """Load an exported world.

        Args:
            folder_or_repo: folder that `dreamer export onnx` wrote, or Hub repository with its files.
            threads: number of CPU threads. Default: as many as there are cores to use.
            provider: "cpu", "cuda", "coreml" or "directml".

        Raises:
            ValueError: there is no such export, its files are damaged or of a later version, or onnxruntime or the
                provider is not installed.
        """
        check_provider(provider)
        folder, manifest = find_export(folder_or_repo)
        graphs = {name: Graph(folder, entry, provider, threads) for name, entry in manifest.graphs.items()}
        return cls(manifest, graphs, load_onnx_starts(folder, manifest))

    @property
    def threads(self) -> int:
        """Number of CPU threads."""
        return self.graphs["dynamics"].threads

    def set_threads(self, threads: int) -> None:
        """Use another number of CPU threads. Rollouts of this world continue with it."""
        for graph in self.graphs.values():
            graph.set_threads(threads)

    def schedule(self, num_inference_steps: int | None = None) -> RolloutSchedule:
        """Return the passes of a frame.

        Args:
            num_inference_steps: denoising passes per frame, a power of two. Default: that of the world.

        Raises:
            ValueError: a number of steps that is not on the model's grid.
        """
        settings = self.manifest.generation
        steps = settings["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        return RolloutSchedule(steps, settings["context_signal_level"], settings["num_signal_levels"])

    def start_rollout(
        self,
        pixel_values_videos: Any,
        actions=None,
        action_mask=None,
        num_inference_steps: int | None = None,
        generator: Sequence[SeededNoise] | None = None,
        context_noise=None,
    ) -> OnnxRollout:
        """Start a dream.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), integer (0..255) or float in [0, 1]; or `OnnxStarts`, or
                any start frames that have `pixel_values_videos`, `actions` and `action_mask`.
            actions: (B,C,a) raw actions; `actions[:, i]` belongs to frame i. By default no context frame has an
                action.
            action_mask: (B,C) bool, False where a context frame has no action.
            num_inference_steps: as in `schedule`.
            generator: one `SeededNoise` for each row. Default: random seeds.
            context_noise: (B,C,N_z,d_z) noise of the context; drawn by default.

        Returns:
            [`OnnxRollout`]; any number of them can run side by side on one world.

        Raises:
            ValueError: frames, actions or noise that do not fit, or steps that are not on the model's grid.
        """
        schedule = self.schedule(num_inference_steps)
        context = self.make_context(pixel_values_videos, actions, action_mask)
        if generator is None:
            generator = [SeededNoise(secrets.randbelow(MAX_SEED)) for _ in context.latents]
        return OnnxRollout(self, context, schedule, generator, context_noise)

    def make_context(self, frames: Any, actions=None, action_mask=None) -> OnnxContext:
        """Encode context frames, for `start_rollout` and `reset`; see there.

        Frames so long ago that they cannot influence a rollout are left out. The latents of `OnnxStarts` are known.
        """
        if hasattr(frames, "action_mask"):
            if actions is not None or action_mask is not None:
                raise ValueError(
                    "expected no actions with start frames, which bring their own: leave actions and mask out."
                )
            actions, action_mask = frames.actions, frames.action_mask
        latents = getattr(frames, "latents", None)
        if latents is None:
            pixels = self._checked_frames(getattr(frames, "pixel_values_videos", frames))
            num_frames = pixels.shape[1]
            latents = self.encode(pixels[:, -(self._context_reach + self.graphs["encoder"].entry.reach) :])
        else:
            num_frames = latents.shape[1]
        latents = latents[:, -self._context_reach :]
        actions, action_mask = self.prepare_actions(actions, action_mask, (len(latents), num_frames))
        skipped = num_frames - latents.shape[1]
        return OnnxContext(latents, actions[:, skipped:], action_mask[:, skipped:], skipped)

    @property
    def _context_reach(self) -> int:
        """Number of context frames that can influence a rollout."""
        return max(self.graphs["dynamics"].entry.reach, self.graphs["decoder"].entry.reach, 1)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Encode frames (B,C,3,H,W), integer or float in [0, 1], into latents float32 (B,C,N_z,d_z).

        Raises:
            ValueError: frames of another shape or type, or values outside their range.
        """
        frames = self._checked_frames(frames)
        graph = self.graphs["encoder"]
        ring = Ring(graph, len(frames))
        parts = [frames[:, chunk] for chunk in chunks(frames.shape[1], graph.entry.context_length)]
        return np.concatenate([run_tokenizer(graph, "frames", _unit_range(part), ring) for part in parts], axis=1)

    def _checked_frames(self, frames) -> np.ndarray:
        frames = np.asarray(frames)
        expected = (3, *self.frame_size)
        if frames.ndim != 5 or frames.shape[2:] != expected or frames.size == 0:
            raise ValueError(
                f"expected frames of shape (B, T, {', '.join(map(str, expected))}) with at least one row and one "
                f"frame, got {frames.shape}: resize them first."
            )
        is_float = np.issubdtype(frames.dtype, np.floating)
        if not is_float and not np.issubdtype(frames.dtype, np.integer):
            raise ValueError(f"expected frames of an integer or float type, got {frames.dtype}.")
        high, slack = (1, ROUNDING) if is_float else (255, 0)
        if frames.dtype != np.uint8 and not (-slack <= frames.min() and frames.max() <= high + slack):
            raise ValueError(
                f"expected integer frames from 0 to 255 or float frames from 0 to 1, got {frames.dtype} frames from "
                f"{frames.min():g} to {frames.max():g}."
            )
        return frames

    def prepare_actions(self, actions, action_mask, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return raw actions, clipped to the range of the training data, and which frames have one.

        Args:
            actions: (*shape, a); None if no frame has an action.
            action_mask: (*shape) bool, False where a frame has no action; None if every frame has one.
            shape: leading dimensions.

        Returns:
            float32 (*shape, a), zero where there is no action, and bool (*shape).

        Raises:
            ValueError: another shape, or an action that is not finite.
        """
        if actions is None:
            return np.zeros((*shape, self.space.size), np.float32), np.zeros(shape, bool)
        actions = _as_array(actions, np.float32, (*shape, self.space.size), "actions")
        mask = np.ones(shape, bool) if action_mask is None else _as_array(action_mask, bool, shape, "action_mask")
        if not np.isfinite(actions[mask]).all():
            raise ValueError(
                "expected finite actions, got NaN or infinity: mark frames without an action in action_mask."
            )
        return np.where(mask[..., None], self.space.clip(actions), np.float32(0)), mask


def _unit_range(frames: np.ndarray) -> np.ndarray:
    is_float = np.issubdtype(frames.dtype, np.floating)
    return frames.astype(np.float32) if is_float else frames.astype(np.float32) / np.float32(255)


def _as_array(values, dtype: type, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {name} of shape {shape}, got something else ({error}).") from error
    if array.shape != shape:
        raise ValueError(f"expected {name} of shape {shape}, got {array.shape}.")
    return array


__all__ = ["OnnxWorld"]

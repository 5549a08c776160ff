"""An exported world, on NumPy and ONNX Runtime alone.

Shapes: B rows, C context frames, T frames, N_z latent tokens, d_z latent channels, S state components, a action width,
V cameras, H, W pixels.
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
from .manifest import Manifest, action_space, state_space
from .onnx_frames import OnnxContext, join_cameras, split_cameras
from .onnx_rollout import OnnxRollout
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
        state_space: the world's state, of length 0 if it has none.
        fps: frame rate of the world; None if it does not know it.
        frame_size: (H, W), of one camera.
        camera_names: names of several cameras; None for one.
        latent_shape: (N_z, d_z), of all cameras together.
        starts: frames to start from; None if the world carries none.
    """

    def __init__(self, manifest: Manifest, graphs: dict[str, Graph], starts: OnnxStarts | None):
        self.manifest, self.graphs, self.starts = manifest, graphs, starts
        self.space, self.state_space = action_space(manifest.actions), state_space(manifest.state)
        self.camera_names = manifest.cameras
        self._state_std = np.float32([] if manifest.state is None else manifest.state["std"])
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
    def has_state(self) -> bool:
        """Whether the world has a state."""
        return len(self.state_space) > 0

    @property
    def num_cameras(self) -> int:
        """V, the number of cameras."""
        return self.manifest.num_cameras

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
        states=None,
        state_mask=None,
        context_state_noise=None,
    ) -> OnnxRollout:
        """Start a dream.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), integer (0..255) or float in [0, 1]; (B,C,V,3,H,W) for V
                cameras; or `OnnxStarts`, or any start frames that have `pixel_values_videos`, `actions` and
                `action_mask`, and perhaps `states` and `state_mask`.
            actions: (B,C,a) raw actions; `actions[:, i]` belongs to frame i. By default no context frame has an
                action.
            action_mask: (B,C) bool, False where a context frame has no action.
            num_inference_steps: as in `schedule`.
            generator: one `SeededNoise` for each row. Default: random seeds.
            context_noise: (B,C,N_z,d_z) noise of the context; drawn by default.
            states: (B,C,S), the states of the context frames in the units of the data. By default no context frame has
                a state.
            state_mask: (B,C) bool, False where a context frame has no state. Default: every frame has one if there
                are `states`.
            context_state_noise: (B,C,S) noise of the states; drawn after that of the latents by default.

        Returns:
            [`OnnxRollout`]; any number of them can run side by side on one world.

        Raises:
            ValueError: frames, actions, states or noise that do not fit, or steps that are not on the model's grid.
        """
        schedule = self.schedule(num_inference_steps)
        context = self.make_context(pixel_values_videos, actions, action_mask, states, state_mask)
        if generator is None:
            generator = [SeededNoise(secrets.randbelow(MAX_SEED)) for _ in context.latents]
        return OnnxRollout(self, context, schedule, generator, context_noise, context_state_noise)

    def make_context(self, frames: Any, actions=None, action_mask=None, states=None, state_mask=None) -> OnnxContext:
        """Encode context frames, for `start_rollout` and `reset`; see there.

        Frames so long ago that they cannot influence a rollout are left out. The latents of `OnnxStarts` are known.
        """
        if hasattr(frames, "action_mask"):
            if actions is not None or action_mask is not None:
                raise ValueError(
                    "expected no actions with start frames, which bring their own: leave actions and mask out."
                )
            if states is not None or state_mask is not None:
                raise ValueError(
                    "expected no states with start frames, which bring their own: leave states and mask out."
                )
            actions, action_mask = frames.actions, frames.action_mask
            if self.has_state:  # otherwise they may be saved for several worlds
                states, state_mask = getattr(frames, "states", None), getattr(frames, "state_mask", None)
        latents = getattr(frames, "latents", None)
        if latents is None:
            pixels = self._checked_frames(getattr(frames, "pixel_values_videos", frames))
            num_frames = pixels.shape[1]
            latents = self.encode(pixels[:, -(self._context_reach + self.graphs["encoder"].entry.reach) :])
        else:
            num_frames = latents.shape[1]
        latents = latents[:, -self._context_reach :]
        shape, skipped = (len(latents), num_frames), num_frames - latents.shape[1]
        conditions = self.prepare_actions(actions, action_mask, shape) + self.prepare_states(states, state_mask, shape)
        last = (None if part is None else part[:, skipped:] for part in conditions)
        return OnnxContext(latents, *last, num_skipped=skipped)

    @property
    def _context_reach(self) -> int:
        """Number of context frames that can influence a rollout."""
        return max(self.graphs["dynamics"].entry.reach, self.graphs["decoder"].entry.reach, 1)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Encode frames (B,C,3,H,W), integer or float in [0, 1], into latents float32 (B,C,N_z,d_z).

        Those of V cameras are (B,C,V,3,H,W).

        Raises:
            ValueError: frames of another shape or type, or values outside their range.
        """
        frames = self._checked_frames(frames)
        videos = frames if self.num_cameras == 1 else split_cameras(frames)
        graph = self.graphs["encoder"]
        ring = Ring(graph, len(videos))
        parts = [videos[:, chunk] for chunk in chunks(videos.shape[1], graph.entry.context_length)]
        latents = np.concatenate([_run_tokenizer(graph, "frames", _unit_range(part), ring) for part in parts], axis=1)
        if self.num_cameras == 1:
            return latents
        return join_cameras(latents, self.num_cameras).reshape(*frames.shape[:2], *self.latent_shape)

    def decode(self, latents: np.ndarray, ring: Ring) -> np.ndarray:
        """Decode the latents of the next frames of every row, float32 (B,T,N_z,d_z), into frames in [0, 1].

        Args:
            latents: the latents.
            ring: the decoder's past, of B*V rows, which then includes these frames.

        Returns:
            float32 (B,T,3,H,W), or (B,T,V,3,H,W) for V cameras.
        """
        if self.num_cameras == 1:
            return _run_tokenizer(ring.graph, "latents", latents, ring)
        tokens, width = self.latent_shape
        latents = latents.reshape(*latents.shape[:2], self.num_cameras, tokens // self.num_cameras, width)
        return join_cameras(_run_tokenizer(ring.graph, "latents", split_cameras(latents), ring), self.num_cameras)

    def _checked_frames(self, frames) -> np.ndarray:
        frames = np.asarray(frames)
        expected = (3, *self.frame_size)
        if self.camera_names is not None:
            expected = (self.num_cameras, *expected)
            if frames.ndim == 5 or (frames.ndim == 6 and frames.shape[2] != self.num_cameras):
                raise ValueError(
                    f"the world has the cameras {', '.join(self.camera_names)}: expected frames of shape (B, T, "
                    f"{', '.join(map(str, expected))}), an image of each camera, got {frames.shape}."
                )
        if frames.ndim != 2 + len(expected) or frames.shape[2:] != expected or frames.size == 0:
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

    def prepare_states(
        self, states, state_mask, shape: tuple[int, ...]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return normalized states, and which frames have one; None and None for a world without a state.

        Args:
            states: (*shape, S) in the units of the data; None if no frame has a state.
            state_mask: (*shape) bool, False where a frame has no state; None if every frame has one.
            shape: leading dimensions.

        Returns:
            float32 (*shape, S), zero where there is no state, and bool (*shape).

        Raises:
            ValueError: another shape, a state that is not finite, or one that the world does not have.
        """
        if not self.has_state:
            if states is not None:
                raise ValueError("the world has no state (state_dim=0): leave states and state_mask out.")
            return None, None
        size = len(self.state_space)
        if states is None:
            return np.zeros((*shape, size), np.float32), np.zeros(shape, bool)
        name = f"states ({', '.join(self.state_space.names)})"
        states = _as_array(states, np.float32, (*shape, size), name)
        mask = np.ones(shape, bool) if state_mask is None else _as_array(state_mask, bool, shape, "state_mask")
        if not np.isfinite(states[mask]).all():
            raise ValueError("expected finite states, got NaN or infinity: mark frames without a state in state_mask.")
        return np.where(mask[..., None], (states - self.state_space.mean) / self._state_std, np.float32(0)), mask

    def denormalize_states(self, states: np.ndarray) -> np.ndarray:
        """Return normalized states (..., S) in the units of the data, float32."""
        return states * self._state_std + self.state_space.mean


def _run_tokenizer(graph: Graph, name: str, states: np.ndarray, ring: Ring) -> np.ndarray:
    """Run an encoder or a decoder over the next frames of every row, and commit them.

    Args:
        graph: the graph.
        name: its input, "frames" or "latents".
        states: that input, float32 (B,T,...).
        ring: the past, which then includes these frames.
    """
    output = "frames" if name == "latents" else "latents"
    result, *new = graph.run({name: states} | ring.inputs(states.shape[1]), [output, *ring.outputs])
    ring.commit(new, states.shape[1])
    return result


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

"""What the single and the vector environment share: N dreams, the rows of one rollout.

Shapes: N rows, R of them restarted, C context frames, H, W pixels, A action components, N_z latent tokens, d_z channels.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..action_space import ActionSpace
from ..loading import load_world
from ..media import to_uint8
from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from ..start_frames import StartFrames, load_start_frames, read_start_frames
from .action_format import ActionFormat
from .beginnings import chosen_beginnings


@dataclass(frozen=True)
class DreamTransition:
    """One step of N dreams, as reward and termination functions see it; N is 1 in the single environment.

    Attributes:
        previous_frames: uint8 (N,H,W,3), what was seen before.
        actions: float32 (N,A), the raw actions given then.
        frames: uint8 (N,H,W,3), what came of them.
        latents: (N,N_z,d_z) float32 on the world's device, the same as clean latents.
        steps: int64 (N,), steps since each dream's start, this one included.
    """

    previous_frames: np.ndarray
    actions: np.ndarray
    frames: np.ndarray
    latents: torch.Tensor
    steps: np.ndarray


@dataclass(frozen=True, kw_only=True)
class DreamOptions:
    """How an environment dreams; keyword arguments of `gymnasium.make` and `make_vec`.

    Attributes:
        start: where dreams begin: what `read_start_frames` takes, or `StartFrames`. Default: the starts that the adapter
            or the model carries.
        image_key: camera of a LeRobot dataset given as `start` that has several.
        adapter: folder or Hub repository of an adapter for the world.
        device: "cpu", "cuda", ...; default: the GPU if there is one. Of a given world, where it is.
        num_inference_steps: denoising passes a frame, a power of two.
        int8: weights of linear layers as 8-bit integers (torchao); with a path only.
        compile: compile the rollout at the first reset, which takes minutes (`DreamerRollout.compile`).
        flat_actions: one `Box` for all action components, categorical ones too.
        latents_in_info: `info["latents"]` holds the clean latents of the frame, float32 (N_z,d_z).
        reward_fn: `DreamTransition` of N rows -> (N,) numbers; rewards are 0 without it.
        terminated_fn: `DreamTransition` of N rows -> (N,) bools; dreams never end without it.
    """

    start: str | os.PathLike | StartFrames | None = None
    image_key: str | None = None
    adapter: str | None = None
    device: str | None = None
    num_inference_steps: int = 4
    int8: bool = False
    compile: bool = False
    flat_actions: bool = False
    latents_in_info: bool = False
    reward_fn: Callable[[DreamTransition], ArrayLike] | None = None
    terminated_fn: Callable[[DreamTransition], ArrayLike] | None = None


class Dreams:
    """N dreams in one batched rollout. Each row restarts alone, from a start and with noise that a generator of its own
    decides, so that a dream does not depend on its neighbors.

    Args:
        model: folder or Hub repository of a `DreamerWorldModel`, or a loaded one.
        options: see there.
        num_rows: N.

    Attributes:
        world: the model; clones share it.
        rollout: the `DreamerRollout` of N rows; None before the first restart.
        frames: uint8 (N,H,W,3), what is seen now.
        steps: int64 (N,), steps since each row's start.
        format: the space of actions, and the way from it to raw ones.

    Raises:
        ValueError: there is no such world, adapter or start, or they do not fit each other.
    """

    def __init__(self, model: str | os.PathLike | DreamerWorldModel, options: DreamOptions, num_rows: int):
        self.options = options
        self.world = _open_world(model, options)
        config = self.world.config
        self.action_space = ActionSpace.from_config(config.dynamics_config)
        self.format = ActionFormat(self.action_space, options.flat_actions)
        self.fps = float(config.dynamics_config.fps or 10.0)
        self.frame_shape = (*config.tokenizer_config.frame_size, 3)
        self.rollout: DreamerRollout | None = None
        self.frames = np.zeros((num_rows, *self.frame_shape), np.uint8)
        self.steps = np.zeros(num_rows, np.int64)
        self._starts = _open_starts(model, options, config)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.steps)

    def restart(
        self, rows: Sequence[int], rngs: Sequence[np.random.Generator], reset_options: dict | None
    ) -> dict[str, np.ndarray]:
        """Begins new dreams in R rows.

        Args:
            rows: which; all of them the first time.
            rngs: R generators; each decides its row's start, and the noise of its whole dream.
            reset_options: where to begin instead, see `chosen_beginnings`.

        Returns:
            What goes into `info`, R rows each.

        Raises:
            ValueError: options that are unknown or do not fit the world.
        """
        # The same draws whatever the options, so that these change nothing about the noise.
        fractions, seeds = zip(*((rng.random(), int(rng.integers(2**63))) for rng in rngs))
        begin = chosen_beginnings(self._starts, fractions, reset_options or {}, self.world.config)
        begin = begin.to(self.world.device)
        pixels = (begin.pixel_values_videos / 255).to(self.world.dtype)
        self._restart_rollout(rows, pixels, begin, [torch.Generator().manual_seed(seed) for seed in seeds])
        self.frames[rows] = begin.pixel_values_videos[:, -1].permute(0, 2, 3, 1).cpu().numpy()
        self.steps[rows] = 0
        if not self.options.latents_in_info:
            return {}
        with torch.no_grad():
            return self.info(self.world.tokenizer.encode(pixels).latents[:, -1])

    def step(self, actions: np.ndarray) -> DreamTransition:
        """Dreams one frame in every row; `actions` are raw, float32 (N,A)."""
        output = self.rollout.step(torch.from_numpy(actions).to(self.world.device))
        previous, self.frames = self.frames, to_uint8(output.pixel_values)
        self.steps = self.steps + 1
        return DreamTransition(previous, actions, self.frames.copy(), output.latents, self.steps)

    def judge(self, transition: DreamTransition) -> tuple[np.ndarray, np.ndarray]:
        """Rewards (N,) float64 and ends (N,) bool of a step, by the functions in the options.

        Raises:
            ValueError: a function does not give one value a row.
        """
        shape, given = (self.num_rows,), self.options
        rewards, ends = np.zeros(shape), np.zeros(shape, bool)
        if given.reward_fn is not None:
            rewards = np.asarray(given.reward_fn(transition), dtype=np.float64)
        if given.terminated_fn is not None:
            ends = np.asarray(given.terminated_fn(transition), dtype=bool)
        for name, values in (("reward_fn", rewards), ("terminated_fn", ends)):
            if values.shape != shape:
                raise ValueError(f"{name} gave shape {values.shape}: it must give one value a row, {shape}.")
        return rewards, ends

    def info(self, latents: torch.Tensor) -> dict[str, np.ndarray]:
        """What goes into `info` about frames with these latents (R,N_z,d_z)."""
        return {"latents": latents.float().cpu().numpy()} if self.options.latents_in_info else {}

    def clone(self) -> Dreams:
        """An independent copy that shares the model."""
        twin = copy.copy(self)
        twin.rollout = None if self.rollout is None else self.rollout.clone()
        twin.frames, twin.steps = self.frames.copy(), self.steps.copy()
        return twin

    def _restart_rollout(self, rows: Sequence[int], pixels: torch.Tensor, begin: StartFrames, generators) -> None:
        if self.rollout is None:
            self.rollout = self.world.start_rollout(
                pixels,
                begin.actions,
                begin.action_mask,
                num_inference_steps=self.options.num_inference_steps,
                generator=generators,
            )
            if self.options.compile:
                self.rollout.compile()
            return
        # A whole restart keeps nothing of the past; rows restart beside what goes on.
        rows = None if len(rows) == self.num_rows else list(rows)
        self.rollout.reset(pixels, begin.actions, begin.action_mask, rows=rows, generator=generators)


def _open_world(model: str | os.PathLike | DreamerWorldModel, options: DreamOptions) -> DreamerWorldModel:
    if not isinstance(model, DreamerWorldModel):
        return load_world(model, options.device, options.adapter, options.int8)
    if options.adapter is not None or options.device is not None or options.int8:
        raise ValueError(
            "a loaded world comes with its device, adapter and weights: give these options with a path only."
        )
    return model


def _open_starts(model, options: DreamOptions, config) -> StartFrames | None:
    """Where dreams begin; None for a loaded world without a `start`, which can only begin from given frames."""
    if isinstance(options.start, StartFrames):
        starts = options.start
    elif options.start is not None:
        starts = read_start_frames(options.start, config, options.image_key)
    elif isinstance(model, DreamerWorldModel):
        return None
    else:
        starts = load_start_frames(options.adapter or model)
    starts.check_fits(config)
    return starts

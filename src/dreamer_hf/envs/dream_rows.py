"""What the single and the vector environment share: N dreams that step together.

Shapes: N rows, R of them restarted, H, W pixels, A action components, N_z latent tokens, d_z latent channels.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from ..dreams import Dream, Dreams
from ..engines.opening import open_world, read_starts_for
from ..engines.world_engine import as_numpy
from ..trust import TrustModel, load_trust
from .action_format import ActionFormat
from .start_selection import select_starts

if TYPE_CHECKING:
    import torch

    from ..modeling_dreamer_world import DreamerWorldModel
    from ..onnx import OnnxRollout, OnnxWorld
    from ..rollout import DreamerRollout
    from ..start_frames import StartFrames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DreamTransition:
    """One step of N dreams, as reward and termination functions see it; N is 1 in the single environment.

    Attributes:
        previous_frames: uint8 (N, H, W, 3), the frames before the step.
        actions: float32 (N, A), the raw actions, clipped to the range of the data.
        frames: uint8 (N, H, W, 3), the frames after it.
        latents: (N, N_z, d_z), their clean latents: a tensor on the world's device, or with the engine "onnx" a
            float32 NumPy array.
        steps: int64 (N,), steps since each dream's start, including this one.
        states: float32 (N, S), the states after the step in the units of the data; S is 0 for a world without a state.
    """

    previous_frames: np.ndarray
    actions: np.ndarray
    frames: np.ndarray
    latents: torch.Tensor | np.ndarray
    steps: np.ndarray
    states: np.ndarray


@dataclass(frozen=True, kw_only=True)
class DreamOptions:
    """How an environment dreams: keyword arguments of `gymnasium.make` and `make_vec`.

    Attributes:
        start: where dreams start: what `read_start_frames` takes, or `StartFrames`. Defaults to the start frames saved
            with the adapter or the model.
        image_key: camera to use if `start` is a LeRobot dataset with several.
        action_key: feature that holds the actions if `start` is a LeRobot dataset.
        engine: "torch"; "onnx": ONNX Runtime, which is faster on a CPU and needs no PyTorch; or "auto": ONNX Runtime
            on a CPU if it is installed. A loaded world has its engine.
        adapter: folder or Hub repository of an adapter for the world.
        device: "cpu", "cuda", ... Defaults to the GPU if there is one. A loaded world stays where it is.
        num_inference_steps: denoising passes per frame, a power of two. Defaults to what is saved with the world.
        int8: load the weights of linear layers as 8-bit integers (torchao); only with a path.
        threads: CPU threads of this process (`torch.set_num_threads`). Defaults to what suits the world, found by a
            short measurement at the first reset and logged.
        compile: compile the rollout at the first reset, which takes minutes (`DreamerRollout.compile`).
        flat_actions: use one `Box` for all action components, including categorical ones.
        latents_in_info: put the clean latents of the frame, float32 (N_z, d_z), into `info["latents"]`.
        trust: put the trust of the frame, in [0, 1], into `info["trust"]`, at the cost of a second dream and an
            encoder pass: True for the one that is saved with the model, or a `TrustModel`, or where one is.
        reward_fn: `DreamTransition` of N rows -> (N,) numbers. Rewards are 0 without it.
        terminated_fn: `DreamTransition` of N rows -> (N,) bools. Dreams do not end without it.
    """

    start: str | os.PathLike | StartFrames | None = None
    image_key: str | None = None
    action_key: str = "action"
    engine: str = "torch"
    adapter: str | None = None
    device: str | None = None
    num_inference_steps: int | None = None
    int8: bool = False
    threads: int | None = None
    compile: bool = False
    flat_actions: bool = False
    latents_in_info: bool = False
    trust: bool | str | os.PathLike | TrustModel = False
    reward_fn: Callable[[DreamTransition], ArrayLike] | None = None
    terminated_fn: Callable[[DreamTransition], ArrayLike] | None = None


class DreamRows:
    """N dreams in one rollout. A random generator for each row decides where the row's dreams start, and their noise.

    Args:
        model: folder or Hub repository of a `DreamerWorldModel`, or a loaded one.
        options: see `DreamOptions`.
        num_rows: N.

    Attributes:
        dreams: of the world; clones share it.
        rows: the N dreams; empty before the first restart.
        format: converts between the Gymnasium action space and raw actions.
        frame_shape: (H, W, 3).

    Raises:
        ValueError: the world, adapter or start frames do not exist, or do not fit each other.
    """

    def __init__(self, model: str | os.PathLike | DreamerWorldModel | OnnxWorld, options: DreamOptions, num_rows: int):
        self.options, self.num_rows = options, num_rows
        world, starts = _open(model, options)
        self.dreams = Dreams(world, starts, options.num_inference_steps, _trust_model(model, options.trust))
        self.format = ActionFormat(self.dreams.space, options.flat_actions)
        self.frame_shape = (*self.dreams.frame_size, 3)
        self.rows: list[Dream] = []

    @property
    def rollout(self) -> DreamerRollout | OnnxRollout | None:
        """The rollout of all rows; None before the first restart."""
        return self.dreams.rollout(self.rows) if self.rows else None

    @property
    def observation_space(self) -> gymnasium.Space:
        """The space of one observation: frames, or with a state a `Dict` of `pixels` and `state`."""
        pixels = gymnasium.spaces.Box(0, 255, self.frame_shape, np.uint8)
        size = len(self.dreams.state_space)
        if not size:
            return pixels
        # A dream may leave the range of the data.
        state = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        return gymnasium.spaces.Dict({"pixels": pixels, "state": state})

    @property
    def states(self) -> np.ndarray:
        """The current states, float32 (N, S), as a copy; S is 0 for a world without a state."""
        if not self.rows or not len(self.dreams.state_space):
            return np.zeros((self.num_rows, len(self.dreams.state_space)), np.float32)
        return np.stack([dream.state for dream in self.rows])

    @property
    def observations(self) -> np.ndarray | dict[str, np.ndarray]:
        """The current observations of all rows, batched."""
        return self.frames if not len(self.dreams.state_space) else {"pixels": self.frames, "state": self.states}

    def observation(self, row: int) -> np.ndarray | dict[str, np.ndarray]:
        """Return the current observation of a row."""
        batch = self.observations
        return {name: part[row] for name, part in batch.items()} if isinstance(batch, dict) else batch[row]

    @property
    def frames(self) -> np.ndarray:
        """The current frames, uint8 (N, H, W, 3), as a copy."""
        if not self.rows:
            return np.zeros((self.num_rows, *self.frame_shape), np.uint8)
        return np.stack([dream.frame for dream in self.rows])

    def restart(self, rows: Sequence[int], rngs: Sequence[np.random.Generator], reset_options: dict | None) -> None:
        """Start new dreams in R rows; the first time, in all of them.

        Args:
            rows: indices of the rows.
            rngs: R generators; each decides where its row starts, and the noise of the whole dream.
            reset_options: where to start instead, see `select_starts`.

        Raises:
            ValueError: options that are unknown or do not fit the world.
        """
        # The options do not change what is drawn, so they do not change the noise.
        fractions, seeds = zip(*((rng.random(), int(rng.integers(2**63))) for rng in rngs))
        starts = select_starts(self.dreams.starts, fractions, reset_options or {}, self.dreams.engine)
        if self.rows:
            self.dreams.restart([self.rows[row] for row in rows], starts, seeds)
            return
        self.rows = self.dreams.begin(starts, seeds)
        log.info("using %s", self.dreams.choose_threads(self.rows, self.options.threads))
        if self.options.compile:
            self.rollout.compile()

    def step(self, actions: np.ndarray) -> DreamTransition:
        """Dream one frame in every row; `actions` are raw, float32 (N, A)."""
        previous = self.frames
        self.dreams.step(self.rows, actions)
        return DreamTransition(
            previous,
            np.stack([dream.action for dream in self.rows]),
            self.frames,
            self.dreams.engine.stack([dream.latents for dream in self.rows]),
            np.array([dream.step for dream in self.rows]),
            self.states,
        )

    def evaluate(self, transition: DreamTransition) -> tuple[np.ndarray, np.ndarray]:
        """Return the rewards (N,) float64 and the ends (N,) bool of a step, by the functions in the options.

        Raises:
            ValueError: a function does not return one value for each row.
        """
        shape, options = (self.num_rows,), self.options
        rewards, ends = np.zeros(shape), np.zeros(shape, bool)
        if options.reward_fn is not None:
            rewards = np.asarray(options.reward_fn(transition), dtype=np.float64)
        if options.terminated_fn is not None:
            ends = np.asarray(options.terminated_fn(transition), dtype=bool)
        for name, values in (("reward_fn", rewards), ("terminated_fn", ends)):
            if values.shape != shape:
                raise ValueError(f"{name} gave shape {values.shape}: it must give one value a row, {shape}.")
        return rewards, ends

    def info(self, row: int) -> dict[str, np.ndarray]:
        """Return the info of a row about its current frame."""
        dream = self.rows[row]
        info = {"latents": as_numpy(dream.latents)} if self.options.latents_in_info else {}
        return info if dream.trust is None else info | {"trust": dream.trust}

    def clone(self) -> DreamRows:
        """Return an independent copy that shares the model."""
        twin = copy.copy(self)
        twin.rows = self.dreams.clone(self.rows) if self.rows else []
        return twin


def _trust_model(model, trust: bool | str | os.PathLike | TrustModel) -> TrustModel | None:
    if isinstance(trust, bool) and trust and not isinstance(model, str | os.PathLike):
        raise ValueError("a loaded world does not know where its trust model is: give trust=PATH or a TrustModel.")
    if isinstance(trust, bool):
        return load_trust(model) if trust else None
    return trust if isinstance(trust, TrustModel) else load_trust(trust)


def _open(model: str | os.PathLike | DreamerWorldModel | OnnxWorld, options: DreamOptions) -> tuple:
    """Return the world, and its start frames; None for a loaded world without a `start`: then `reset` needs frames."""
    if isinstance(model, str | os.PathLike):
        world, starts, note = open_world(str(model), options, announce=log.info)
        log.info(note)
        return world, starts
    if options.adapter is not None or options.device is not None or options.int8:
        raise ValueError(
            "a loaded world comes with its device, adapter and weights: give these options with a path only."
        )
    starts = options.start
    if isinstance(starts, str | os.PathLike):
        starts = read_starts_for(model, options)
    return model, starts

"""One person's game inside a world: the loop's state, without a window, a device or a clock."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ..action_space import ActionSpace
from ..media import to_uint8
from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from ..start_frames import StartFrames
from .sources import ActionSource

REWIND_FRAMES = 10  # also the distance between snapshots
KEPT_SNAPSHOTS = 6
DEFAULT_FPS = 10.0  # for worlds that do not know their frame rate


class Recorder(Protocol):
    """Takes the steps of a session."""

    def add(self, before: np.ndarray, action: np.ndarray, after: np.ndarray) -> None:
        """One step: the frame that was shown, the raw action given, the frame that came; uint8 (H, W, 3) RGB."""

    def cut(self) -> None:
        """The next step does not continue the last one (reset, rewind)."""

    def close(self) -> None:
        """Finishes what was recorded."""


class Companion(Protocol):
    """Something led through the same actions beside the dream, such as the simulator that the dream is of.

    Attributes:
        frame: uint8 (H, W, 3) RGB, what is seen there now.
    """

    frame: np.ndarray

    def begin(self, start_index: int) -> None:
        """The dream begins from one of the starts."""

    def advance(self, action: np.ndarray, dreamt: np.ndarray) -> None:
        """The dream has answered a raw action (A,) with a frame."""

    def rewind(self, step: int) -> None:
        """The dream goes back to the moment after this number of steps."""

    def status(self) -> str:
        """A few words about the moment."""


class Snapshot(NamedTuple):
    """One moment, with all that is needed to go on from it in exactly the same way, and what was done after it."""

    step: int
    rollout: DreamerRollout
    frame: np.ndarray
    action: np.ndarray
    actions_after: list[np.ndarray]


class PlaySession:
    """Steps a world with the actions of a source, and knows how to begin again and how to go back.

    Every dream is reproducible: each one has a seed of its own, and a rewind brings the state of its noise back.

    Args:
        world: the world to play.
        starts: where dreams begin; must fit the world (see `StartFrames.check_fits`).
        source: gives the action of each step.
        recorders: take every step; closed by `close`, which a `with` block calls whatever happens.
        num_inference_steps: denoising steps for each frame, a power of two.
        seed: of the noise of the first dream; each reset takes the next number.
        companion: is led through whatever the dream is led through.
        rollout: one of the world, a compiled one perhaps, that every dream resets (`num_inference_steps` is then its own); the
            first dream starts one if not given.

    Attributes:
        frame: uint8 (H, W, 3) RGB, what is seen now.
        last_action: float32 (A,), the raw action that led to it.
        step_index: steps since the start frames.
        start_index: which of the starts the dream began from.
    """

    def __init__(
        self,
        world: DreamerWorldModel,
        starts: StartFrames,
        source: ActionSource,
        recorders: Sequence[Recorder] = (),
        num_inference_steps: int = 4,
        seed: int = 0,
        companion: Companion | None = None,
        rollout: DreamerRollout | None = None,
    ):
        starts.check_fits(world.config)
        self.world = world
        self.starts = starts
        self.source = source
        self.recorders = list(recorders)
        self.num_inference_steps = num_inference_steps
        self.space = ActionSpace.from_config(world.config.dynamics_config)
        self.fps = float(world.config.dynamics_config.fps or DEFAULT_FPS)
        self.companion = companion
        self.next_seed = seed
        self.rollout = rollout
        self._begin(0)

    def __enter__(self) -> "PlaySession":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def advance(self) -> bool:
        """Dreams one frame. Returns False, and does nothing, when the source has no more actions."""
        action = self.source.action(self.step_index)
        if action is None:
            return False
        before = self.frame
        self._dream(action)
        if self.companion is not None:
            self.companion.advance(action, self.frame)
        for recorder in self.recorders:
            recorder.add(before, action, self.frame)
        return True

    def next_start(self) -> None:
        """Begins again from the next of the starts (after the last one, the first)."""
        self._begin((self.start_index + 1) % len(self.starts))
        self._cut()

    def rewind(self) -> None:
        """Goes back ten frames, or as far as it can.

        A snapshot is kept every ten frames only; the frames between it and the moment asked for are dreamt again,
        with the same actions and the same noise, so they are the same.
        """
        goal = max(self.step_index - REWIND_FRAMES, self._snapshots[0].step)
        while self._snapshots[-1].step > goal:
            self._snapshots.pop()
        snapshot = self._snapshots[-1]
        actions = snapshot.actions_after[: goal - snapshot.step]
        self._restore(snapshot)
        for action in actions:
            self._dream(action)
        if self.companion is not None:
            self.companion.rewind(goal)
        self.source.resume_from(self.last_action)
        self._cut()

    def close(self) -> None:
        """Finishes every recording, each even if another one fails."""
        with ExitStack() as stack:
            for recorder in self.recorders:
                stack.callback(recorder.close)

    def _begin(self, start_index: int) -> None:
        start = self.starts[start_index].to(self.world.device)
        # On the CPU a seed gives the same noise whatever the world runs on.
        generator = torch.Generator().manual_seed(self.next_seed)
        self.next_seed += 1
        self.start_index = start_index
        self.step_index = 0
        frames = (start.pixel_values_videos / 255).to(self.world.dtype)
        context = {"actions": start.actions, "action_mask": start.action_mask, "generator": generator}
        if self.rollout is None:
            self.rollout = self.world.start_rollout(frames, num_inference_steps=self.num_inference_steps, **context)
        else:  # what was compiled stays so
            self.rollout.reset(frames, **context)
        self.frame = start.pixel_values_videos[0, -1].permute(1, 2, 0).cpu().numpy()
        self.last_action = start.actions[0, -1].cpu().numpy() if start.action_mask[0, -1] else self.space.rest
        if self.companion is not None:
            self.companion.begin(start_index)
        self.source.resume_from(self.last_action)
        self._snapshots: deque[Snapshot] = deque([self._snapshot()], maxlen=KEPT_SNAPSHOTS)

    def _dream(self, action: np.ndarray) -> None:
        actions = torch.from_numpy(action).to(self.world.device)[None]
        pixels = self.rollout.step(actions).pixel_values[0]
        self.frame = to_uint8(pixels)
        self.last_action = action
        self.step_index += 1
        self._snapshots[-1].actions_after.append(action)
        if self.step_index % REWIND_FRAMES == 0:
            self._snapshots.append(self._snapshot())

    def _cut(self) -> None:
        for recorder in self.recorders:
            recorder.cut()

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.step_index, self.rollout.clone(), self.frame, self.last_action, [])

    def _restore(self, snapshot: Snapshot) -> None:
        self.rollout.copy_(snapshot.rollout)
        self.step_index, self.frame, self.last_action = snapshot.step, snapshot.frame, snapshot.action
        snapshot.actions_after.clear()

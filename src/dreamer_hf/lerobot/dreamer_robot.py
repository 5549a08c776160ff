"""A dream as a robot of LeRobot: observations are its frames and its state, actions dream the next frame.

Shapes: H, W pixels of one camera, A components of an action.
"""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np
from lerobot.robots.robot import Robot
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from ..envs.dream_rows import DreamRows
from ..pacing import PacingClock
from .action_targets import ActionTargets, are_absolute
from .camera_images import CameraImages
from .config_dreamer_robot import DreamerRobotConfig
from .dream_env import DreamerLeRobotEnv
from .episode_watch import EpisodeWatch
from .motor_names import motor_features, motor_key
from .policy_facts import policy_on_command_line
from .policy_fit import check_policy_fits
from .state_readers import make_state_reader, state_kind, state_names
from .world_facts import read_world_facts

log = logging.getLogger(__name__)
NEARLY_DUE = 0.3
"""An action that comes this part of a period before its frame is due waits for it; earlier ones are replaced by later
ones."""


class DreamerRobot(Robot):
    """A dream to teleoperate, record, replay and run policies in.

    Observations are one image uint8 (H, W, 3) for each camera, and the numbers of the state, named as the world
    names them with ".pos" at the end. Actions are named in the same way. They are absolute unless the options say
    otherwise: a world that takes changes gets the changes between them.

    In real time, frames come at the world's rate: an action that is sent before the next frame is due waits for a
    moment, or gives way to later ones. So a loop at the world's rate dreams one frame with every action, and a faster
    loop sees each frame several times, as with a slow camera.

    Raises:
        ValueError: there is no such world, or an option is unknown or does not fit it.
    """

    config_class = DreamerRobotConfig
    name = "dreamer"

    def __init__(self, config: DreamerRobotConfig):
        super().__init__(config)
        self.config = config
        self._facts = read_world_facts(config.world)
        self._kind = state_kind(config.state, self._facts)
        self._names = state_names(self._kind, self._facts)
        policy, _ = policy_on_command_line()
        expected = next(iter(policy.images.values()), (None, None)) if policy else (None, None)
        size = config.height or expected[0], config.width or expected[1]
        cameras = self._facts.cameras or (config.camera_name,)
        self._images = CameraImages(cameras, self._facts.frame_size, size)
        self._keys = [motor_key(name) for name in self._facts.actions.names]
        self._given_names = {motor_key(theirs): motor_key(ours) for theirs, ours in config.action_map.items()}
        spread = None if policy is None else policy.action_spread
        space = self._facts.actions
        self._absolute = are_absolute(config.actions, space, spread)
        self._adds_up = space.relative & ~space.discrete & (not self._absolute)
        self._env: DreamerLeRobotEnv | None = None
        self._watch = EpisodeWatch()

    @cached_property
    def observation_features(self) -> dict:
        """See `Robot`."""
        images = dict.fromkeys(self._images.cameras, (*self._images.size, 3))
        return motor_features(self._names) | images

    @cached_property
    def action_features(self) -> dict:
        """See `Robot`."""
        return motor_features(self._facts.actions.names)

    @property
    def cameras(self) -> dict[str, tuple[int, int, int]]:
        """The shapes of the images by camera; LeRobot counts them to plan the work of its writers."""
        return dict.fromkeys(self._images.cameras, (*self._images.size, 3))

    @property
    def is_connected(self) -> bool:
        """Whether there is a dream."""
        return self._env is not None

    @property
    def is_calibrated(self) -> bool:
        """Always: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Load the world and begin a dream.

        Raises:
            ValueError: the policy of `--policy.path` does not fit the world, or as in `DreamRows`.
        """
        if self.is_connected:
            raise DeviceAlreadyConnectedError("this dream is connected already: disconnect it first.")
        self._check_policy()
        self._env = DreamerLeRobotEnv(
            DreamRows(self.config.world, self.config.dream_options(), 1),
            self._images,
            make_state_reader(self._kind, self._facts, 1),
            ActionTargets(self._facts.actions, 1, self._absolute),
            start_index=self.config.start_index,
        )
        self._clock = PacingClock(self._facts.fps)
        self._begin(self.config.seed)
        if self.config.restart:
            self._watch.start()
        log.info(
            f"A dream of {self.config.world} runs at {self._facts.fps:g} frames per second: give the command the same "
            f"rate (--fps or --dataset.fps {self._facts.frame_rate})."
        )

    def calibrate(self) -> None:
        """Do nothing."""

    def configure(self) -> None:
        """Do nothing."""

    def get_observation(self) -> dict:
        """Return the images by camera and the numbers of the state; see `Robot`.

        Raises:
            DeviceNotConnectedError: there is no dream.
        """
        self._check_connected()
        if self._watch.has_started() and self._has_moved:
            self._begin()
        seen = self._observation
        numbers = {motor_key(name): float(value) for name, value in zip(self._names, seen.get("agent_pos", [()])[0])}
        return numbers | {name: frames[0] for name, frames in seen["pixels"].items()}

    def send_action(self, action: dict) -> dict:
        """Dream the next frame with an action, or hold the action if no frame is due; return what is applied.

        Args:
            action: the components of an action by name; the ending ".pos" may be missing.

        Raises:
            ValueError: a component is missing or not finite.
            DeviceNotConnectedError: there is no dream.
        """
        self._check_connected()
        values = self._values(action)
        if self._held is not None:
            values = np.where(self._adds_up, values + self._held, values)
        if self.config.realtime and self._clock.seconds_left > NEARLY_DUE * self._clock.period:
            self._held = values
            return dict(zip(self._keys, values.tolist()))
        if self.config.realtime:
            self._clock.tick()
        self._held, self._has_moved = None, True
        self._observation, *_ = self._env.step(values[None])
        return dict(zip(self._keys, self._env.targets.positions[0].tolist()))

    def disconnect(self) -> None:
        """End the dream."""
        self._watch.stop()
        if self._env is not None:
            self._env.close()
        self._env = None

    def _begin(self, seed: int | None = None) -> None:
        """Start another dream."""
        self._observation, _ = self._env.reset(seed=seed)
        self._held, self._has_moved = None, False
        self._clock.restart()

    def _check_connected(self) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError("there is no dream yet: connect the robot first.")

    def _check_policy(self) -> None:
        policy, rename_map = policy_on_command_line()
        if policy is not None:
            shown = [f"observation.images.{name}" for name in self._images.cameras]
            check_policy_fits(self._facts, policy, shown, self._names, rename_map)

    def _values(self, action: dict) -> np.ndarray:
        """Return the components of an action in the world's order, (A,) float64."""
        given = {motor_key(name): value for name, value in action.items()}
        given = {self._given_names.get(name, name): value for name, value in given.items()}
        missing = [key for key in self._keys if key not in given]
        if missing:
            raise ValueError(
                f"the dream takes {', '.join(self._keys)}, but was given {', '.join(action) or 'nothing'}: tell which "
                "is which with --robot.action_map, or use a teleoperator for this robot."
            )
        return np.array([float(given[key]) for key in self._keys]) * self.config.action_scale


__all__ = ["DreamerRobot"]

"""`--env.type=dreamer`: the options of dreams as an environment of LeRobot."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE

from ..reward_functions import reward_function
from .action_targets import ActionTargets, are_absolute
from .camera_images import CameraImages
from .dream_source import DreamSource
from .episode_scores import make_scores
from .policy_facts import policy_on_command_line
from .policy_fit import check_policy_fits
from .state_readers import make_state_reader, state_kind, state_names
from .world_facts import WorldFacts, read_world_facts

log = logging.getLogger(__name__)


@EnvConfig.register_subclass("dreamer")
@dataclass
class DreamerEnvConfig(DreamSource, EnvConfig):
    """A world to evaluate policies in: `lerobot-eval --env.type=dreamer --env.world=me/my-world`.

    Raises:
        ValueError: there is no such world, or an option is unknown or does not fit it.
    """

    # Steps of an episode. Worlds lose track of what they do not see: choose what yours can keep up.
    episode_length: int = 64
    # The instruction for language-conditioned policies.
    task: str | None = None
    # Reward function that says when an episode is solved: pusht:coverage, pusht:reach:X,Y, pusht:push:DIRECTION, or
    # package.module:function. Without one, no episode is.
    success: str | None = None
    # Reward function that gives the reward of each step. Defaults to that of success.
    reward: str | None = None
    # Whether solving an episode ends it.
    terminate_on_success: bool = True
    # Height and width of the images. They default to what the policy of --policy.path expects, or else the world's.
    observation_height: int | None = None
    observation_width: int | None = None
    # What becomes observation.state: world (its own state), pusht (the agent's place in images of PushT), none, or
    # auto: the best that the world has.
    state: str = "auto"
    # What the policy's actions are: absolute (positions, whose changes a relative world takes), world (as the world
    # takes them), or auto: absolute for relative worlds, unless the policy's actions spread no farther than theirs.
    actions: str = "auto"
    # Name of the camera of a world that has one: "top" makes it observation.images.top. Default: observation.image.
    camera_name: str | None = None

    def __post_init__(self):
        for name in (self.success, self.reward):
            if name is not None:
                reward_function(name)  # a wrong name is reported before anything is loaded
        if self.episode_length < 1:
            raise ValueError(f"expected a positive number for --env.episode_length, got {self.episode_length}.")
        facts = read_world_facts(self.world)
        policy, _ = policy_on_command_line()
        expected = next(iter(policy.images.values()), (None, None)) if policy else (None, None)
        self.observation_height = self.observation_height or expected[0] or facts.frame_size[0]
        self.observation_width = self.observation_width or expected[1] or facts.frame_size[1]
        self.fps = facts.frame_rate
        image = PolicyFeature(FeatureType.VISUAL, (self.observation_height, self.observation_width, 3))
        action = PolicyFeature(FeatureType.ACTION, (facts.actions.size,))
        self.features = {ACTION: action} | dict.fromkeys(self._image_keys(facts), image)
        self.features_map = {key: key for key in self.features}
        names = state_names(state_kind(self.state, facts), facts)
        if names:
            self.features["agent_pos"] = PolicyFeature(FeatureType.STATE, (len(names),))
            self.features_map["agent_pos"] = OBS_STATE

    @property
    def gym_kwargs(self) -> dict:
        """What `gymnasium.make` would need for the plain environment."""
        return {"model": self.world, "max_episode_steps": self.episode_length}

    @property
    def package_name(self) -> str:
        """The package that registers the plain environment."""
        return "dreamer_hf.envs"

    @property
    def gym_id(self) -> str:
        """The name of the plain environment."""
        return "dreamer_hf/DreamerWorld-v0"

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict:
        """Return `{"dreamer": {0: DreamerLeRobotEnv}}` of `n_envs` rows in one engine, in this process in any case.

        Raises:
            ValueError: the policy of `--policy.path` does not fit the world, or as in `DreamRows`.
        """
        from ..envs.dream_rows import DreamRows
        from .dream_env import DreamerLeRobotEnv

        facts = read_world_facts(self.world)
        kind = state_kind(self.state, facts)
        policy, rename_map = policy_on_command_line()
        if policy is not None:
            check_policy_fits(facts, policy, self._image_keys(facts), state_names(kind, facts), rename_map)
        absolute = are_absolute(self.actions, facts.actions, None if policy is None else policy.action_spread)
        if absolute:
            log.info(
                "The policy's actions count as positions, whose changes this world takes: --env.actions=world passes "
                "them on unchanged."
            )
        if self.success is None:
            log.warning("Without --env.success every episode counts as failed: name a reward function.")
        size = self.observation_height, self.observation_width
        reward = make_scores(self.reward or self.success, n_envs)
        env = DreamerLeRobotEnv(
            DreamRows(self.world, self.dream_options(), n_envs),
            CameraImages(self._cameras(facts), facts.frame_size, size),
            make_state_reader(kind, facts, n_envs),
            ActionTargets(facts.actions, n_envs, absolute),
            reward,
            reward if self.reward in (None, self.success) else make_scores(self.success, n_envs),
            self.episode_length,
            self.terminate_on_success,
            self.task or "",
            self.start_index,
        )
        return {self.type: {0: env}}

    def _image_keys(self, facts: WorldFacts) -> list[str]:
        """Return what LeRobot calls the images."""
        return [f"{OBS_IMAGES}.{name}" for name in self._cameras(facts)] or [OBS_IMAGE]

    def _cameras(self, facts: WorldFacts) -> tuple[str, ...]:
        return facts.cameras or (() if self.camera_name is None else (self.camera_name,))


__all__ = ["DreamerEnvConfig"]

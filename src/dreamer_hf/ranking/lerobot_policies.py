"""Policies of LeRobot, loaded and run by lerobot's own classes.

Shapes: N episodes, H, W pixels, S state components, A action components.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .observations import AGENT_SIZE, SCENE_SIZE, Observation, WorldView

STATE_KEY, SCENE_KEY = "observation.state", "observation.environment_state"


class LeRobotPolicy:
    """A policy of LeRobot with the processors that are saved with it.

    It gets the frames at the size that it was trained on; as `observation.state` the world's state or, in PushT, the
    position of the agent; as `observation.environment_state` the pose of PushT's block.

    Args:
        path_or_repo: folder with the `config.json` of a policy, or a checkpoint of `lerobot-train` that contains it in
            `pretrained_model`, or a Hub repository.
        device: where to run it.

    Raises:
        ValueError: lerobot is not installed, or there is no such policy.
    """

    def __init__(self, path_or_repo: str, device: str = "cpu"):
        inner = Path(path_or_repo) / "pretrained_model"
        self.name = path_or_repo
        self._policy, self._before, self._after = _load(str(inner if inner.is_dir() else path_or_repo), device)
        config = self._policy.config
        self._images = {key: tuple(feature.shape[-2:]) for key, feature in config.image_features.items()}
        self._state_size = _size(config.robot_state_feature)
        self._scene_size = _size(config.env_state_feature)
        self._action_size = _size(config.action_feature)
        sides = {side for size in self._images.values() for side in size}
        self.image_side = sides.pop() if len(sides) == 1 else None
        self.gives_positions: bool | None = None
        self._cameras: dict[str, int] = {}
        self._uses_scene = False

    def check_fits(self, view: WorldView) -> None:
        """See `Policy`."""
        if self._action_size != view.action_size:
            raise ValueError(
                f"{self.name} gives actions of width {self._action_size} but the world takes {view.action_size}: "
                "choose a policy of the world's robot."
            )
        self._cameras = self._match_cameras(view.camera_names)
        self._uses_scene = self._state_size not in (0, view.state_size)
        if self._uses_scene and not (view.has_scene and self._state_size == AGENT_SIZE):
            has = f"one of width {view.state_size}" if view.state_size else "none"
            raise ValueError(
                f"{self.name} needs a state of width {self._state_size} but the world has {has}: choose a world that "
                "was trained with this state, or a policy without one."
            )
        if self._scene_size not in (0, SCENE_SIZE - AGENT_SIZE) or (self._scene_size and not view.has_scene):
            raise ValueError(
                f"{self.name} needs {SCENE_KEY} of width {self._scene_size}, which this world does not show: choose a "
                "policy that acts on images and state."
            )

    def reset(self, seeds: Sequence[int], observation: Observation) -> None:
        """See `Policy`."""
        torch.manual_seed(seeds[0])
        self._policy.reset()

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """See `Policy`."""
        batch = {
            key: torch.from_numpy(observation.camera(self._cameras[key], size)) for key, size in self._images.items()
        }
        if self._state_size:
            state = observation.scene[:, :AGENT_SIZE] if self._uses_scene else observation.states
            batch[STATE_KEY] = torch.from_numpy(np.asarray(state, np.float32))
        if self._scene_size:
            batch[SCENE_KEY] = torch.from_numpy(observation.scene[:, AGENT_SIZE:].astype(np.float32))
        count = len(next(iter(batch.values())))
        batch["task"] = [""] * count
        actions = self._after(self._policy.select_action(self._before(batch)))
        return actions.cpu().double().numpy()

    def _match_cameras(self, names: Sequence[str]) -> dict[str, int]:
        """Return the index of the world's camera for each image of the policy: of its name, or the only one."""
        if len(self._images) == 1 and len(names) <= 1:
            return dict.fromkeys(self._images, 0)
        ends = {name.rsplit(".", 1)[-1]: index for index, name in enumerate(names)}
        found = {key: ends.get(key.rsplit(".", 1)[-1]) for key in self._images}
        missing = [key for key, index in found.items() if index is None]
        if missing:
            raise ValueError(
                f"{self.name} needs the image(s) {', '.join(missing)} but the world has the camera(s) "
                f"{', '.join(names) or 'one without a name'}: choose a world with these cameras."
            )
        return found


def _size(feature) -> int:
    return 0 if feature is None else int(feature.shape[0])


def _load(path_or_repo: str, device: str):
    try:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        from lerobot.utils.import_utils import register_third_party_plugins
    except ImportError as error:
        raise ValueError("policies of LeRobot need lerobot: pip install 'dreamer_hf[lerobot]'.") from error
    register_third_party_plugins()
    logging.getLogger("lerobot").setLevel(logging.ERROR)
    try:
        config = PreTrainedConfig.from_pretrained(path_or_repo)
        config.device = device
        policy = get_policy_class(config.type).from_pretrained(path_or_repo, config=config).eval()
        before, after = make_pre_post_processors(
            policy_cfg=config,
            pretrained_path=path_or_repo,
            preprocessor_overrides={"device_processor": {"device": device}},
        )
    except Exception as error:  # what lerobot, draccus and the Hub raise has no common class
        lines = (str(error).strip() or type(error).__name__).splitlines()
        raise ValueError(
            f"cannot load a policy from {path_or_repo!r} ({lines[0].rstrip('.')}): give the folder of one of LeRobot."
        ) from error
    return policy, before, after


__all__ = ["LeRobotPolicy"]

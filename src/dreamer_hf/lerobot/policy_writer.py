"""Writes an agent as the folder of a LeRobot policy."""

from __future__ import annotations

import json
from pathlib import Path

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE

from ..data.files import new_output_folder
from ..modeling_dreamer_agent import DreamerAgentModel
from .configuration_dreamer_policy import DreamerConfig
from .modeling_dreamer_policy import DreamerPolicy
from .processor_dreamer_policy import make_dreamer_pre_post_processors


def write_policy(agent: DreamerAgentModel, folder: str | Path, image_keys: list[str] | None = None, **fields) -> None:
    """Write an agent as a LeRobot policy: configuration, weights and processors.

    Args:
        agent: the agent.
        folder: folder to write, which must be new or empty.
        image_keys: name of the observation of each camera. Default: `observation.image`; with several cameras,
            `observation.images.NAME`.
        fields: fields of `DreamerConfig` that differ from their defaults.

    Raises:
        ValueError: another number of names than cameras, a task that the agent does not know, or limits of another
            length than an action.
    """
    config = DreamerConfig(agent=_config_json(agent), **_features(agent, image_keys), **fields)
    size = agent.actions.space.size
    for name in ("target_low", "target_high"):
        limits = getattr(config, name)
        if limits is not None and len(limits) != size:
            raise ValueError(f"--{name} has {len(limits)} numbers: give one for each of {size} actions.")
    policy = DreamerPolicy(config)
    policy.model.load_state_dict(agent.state_dict())
    pipelines = make_dreamer_pre_post_processors(config)
    config.device = None  # chosen where the policy runs
    with new_output_folder(folder) as path:
        policy.save_pretrained(path)
        for pipeline in pipelines:
            pipeline.save_pretrained(path)


def _config_json(agent: DreamerAgentModel) -> str:
    values = agent.config.to_dict()
    return json.dumps(values, sort_keys=True, default=str)


def _features(agent: DreamerAgentModel, image_keys: list[str] | None) -> dict[str, dict]:
    world = agent.config.world_config
    cameras = world.dynamics_config.camera_names
    names = image_keys or ([OBS_IMAGE] if not cameras else [f"{OBS_IMAGES}.{name}" for name in cameras])
    if len(names) != world.dynamics_config.num_cameras:
        raise ValueError(
            f"--image_key has {len(names)} names: give one for each of {world.dynamics_config.num_cameras} camera(s)."
        )
    space, state_size = agent.actions.space, world.dynamics_config.state_dim
    image = PolicyFeature(FeatureType.VISUAL, (3, *world.tokenizer_config.frame_size))
    inputs = dict.fromkeys(names, image)
    if state_size or (space.relative & ~space.discrete).any():
        inputs[OBS_STATE] = PolicyFeature(FeatureType.STATE, (state_size or space.size,))
    return {"input_features": inputs, "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (space.size,))}}


__all__ = ["write_policy"]

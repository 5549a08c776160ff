"""Tiny worlds and policies of LeRobot's own classes, shared by the tests of the plug-ins."""

import numpy as np
import pytest
import torch

from commands import ENVIRONMENT, CommandServer
from dreamer_hf.start_frames import StartFrames, save_start_frames
from tiny import make_starts, make_world, save_world

STATE_STATS = {"mean": [0.0, 1.0], "std": [1.0, 1.0], "min": [-2.0, -1.0], "max": [2.0, 3.0]}
ARM = {
    "camera_names": ["front", "wrist"],
    "num_latent_tokens": 8,
    "state_dim": 2,
    "num_state_tokens": 1,
    "state_stats": STATE_STATS,
    "state_names": ["shoulder", "elbow"],
    "action_names": ["shoulder", "elbow"],
    "action_stats": {"mean": [0.0, 1.0], "std": [1.0, 1.0], "min": [-2.0, -1.0], "max": [2.0, 3.0]},
}
"""Fields of the dynamics config of an arm with two cameras and a state."""

ACT_SIZES = {"chunk_size": 4, "n_action_steps": 4, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16}
ACT_SIZES |= {"n_encoder_layers": 1, "n_decoder_layers": 1, "use_vae": False}
DIFFUSION_SIZES = {"horizon": 8, "n_obs_steps": 2, "n_action_steps": 4, "down_dims": (16, 32), "n_groups": 4}
DIFFUSION_SIZES |= {"spatial_softmax_num_keypoints": 4, "diffusion_step_embed_dim": 16, "num_train_timesteps": 4}
DIFFUSION_SIZES |= {"use_group_norm": True}

VERDICTS = '''
"""Reward functions of a made-up world."""

import numpy as np

from dreamer_hf.reward_signal import RewardSignal


def always(frames, states):
    return RewardSignal(np.ones(len(frames), np.float32), np.ones(len(frames), bool))


def never(frames, states):
    return RewardSignal(np.arange(len(frames), dtype=np.float32), np.zeros(len(frames), bool))
'''


@pytest.fixture(scope="session")
def bare_world(tmp_path_factory):
    """A world of one camera without a name, without a state, whose two actions are targets."""
    return save_world(tmp_path_factory.mktemp("bare") / "world", make_world())


@pytest.fixture(scope="session")
def dot_world(tmp_path_factory):
    """The same with a state, which all policies of LeRobot need."""
    state = {"state_dim": 2, "num_state_tokens": 1, "state_names": ["x", "y"], "state_stats": STATE_STATS}
    return save_world(tmp_path_factory.mktemp("dot") / "world", make_world(**state))


@pytest.fixture(scope="session")
def arm_world(tmp_path_factory):
    """A world of an arm with two cameras and a state."""
    folder = tmp_path_factory.mktemp("arm") / "world"
    make_world(**ARM).save_pretrained(folder)
    starts = make_starts()
    frames = torch.stack([starts.pixel_values_videos, starts.pixel_values_videos.flip(-1)], dim=2)
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 2)).astype(np.float32))
    save_start_frames(folder, StartFrames(frames, starts.actions * 0, starts.action_mask, states))
    return folder


def save_policy(folder, images, state_size, action_size=2, kind="act", spread=100.0):
    """Save a policy with random weights of one of LeRobot's own classes, with its processors."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies import make_pre_post_processors
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torch.manual_seed(0)
    inputs = {name: PolicyFeature(FeatureType.VISUAL, (3, *size)) for name, size in images.items()}
    if state_size:
        inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (state_size,))
    features = {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action_size,))},
        "device": "cpu",
        "push_to_hub": False,
    }
    sizes = ACT_SIZES if kind == "act" else DIFFUSION_SIZES
    config_class, policy_class = (ACTConfig, ACTPolicy) if kind == "act" else (DiffusionConfig, DiffusionPolicy)
    config = config_class(**features, **sizes, pretrained_backbone_weights=None)
    policy = policy_class(config)
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=_stats(inputs, action_size, spread)):
        processor.save_pretrained(folder)
    return folder


def _stats(inputs, action_size, spread):
    def numbers(size, middle, width):
        values = {"mean": middle, "std": width, "min": middle - 2 * width, "max": middle + 2 * width}
        return {name: torch.full((size,), float(value)) for name, value in values.items()}

    stats = {"action": numbers(action_size, 250.0, spread)}
    for name in inputs:
        if name == "observation.state":
            stats[name] = numbers(inputs[name].shape[0], 0.0, 1.0)
        else:
            values = {"mean": 0.5, "std": 0.5, "min": 0.0, "max": 1.0}
            stats[name] = {key: torch.full((3, 1, 1), value) for key, value in values.items()}
    return stats


@pytest.fixture(scope="session")
def dot_policy(tmp_path_factory):
    """An ACT policy that looks at 32-pixel images of one camera."""
    return save_policy(tmp_path_factory.mktemp("policies") / "dot", {"observation.image": (32, 32)}, 2)


@pytest.fixture(scope="session")
def arm_policy(tmp_path_factory):
    """A diffusion policy for the arm, whose cameras have other names."""
    images = {"observation.images.top": (32, 32), "observation.images.hand": (32, 32)}
    return save_policy(tmp_path_factory.mktemp("policies") / "arm", images, 2, kind="diffusion", spread=1.0)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """The installed commands of LeRobot."""
    home = tmp_path_factory.mktemp("home")
    variables = {"HF_HOME": str(home), "HF_LEROBOT_HOME": str(home / "lerobot"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    scripts = (f"lerobot.scripts.lerobot_{name}" for name in ("eval", "record", "replay", "rollout", "teleoperate"))
    running = CommandServer((*scripts, "transformers"), ENVIRONMENT | variables)
    yield running
    running.close()


@pytest.fixture
def made_up(tmp_path):
    """A folder to run commands in, with the module `verdicts`."""
    (tmp_path / "verdicts.py").write_text(VERDICTS)
    return tmp_path

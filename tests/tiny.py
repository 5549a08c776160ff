"""Small real things that the tests share: datasets, models with random weights, and training runs.

Everything is real at a tiny size: LeRobot writes the datasets, the library's own classes are the models, and runs are
those of the scripts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from commands import run_command
from dreamer_hf import (
    DreamerAgentConfig,
    DreamerAgentModel,
    DreamerDynamicsConfig,
    DreamerDynamicsModel,
    DreamerTokenizerConfig,
    DreamerTokenizerModel,
    DreamerWorldConfig,
    DreamerWorldModel,
)
from dreamer_hf.agent_distributions import ActionDistribution
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardMetadata, shard_name
from dreamer_hf.real_time import leave_real_time
from dreamer_hf.start_frames import StartFrames, save_start_frames

# Datasets


def build_once(tmp_path_factory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the folder `name` of this test session, which the first process that asks makes with `build(folder)`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            build(unfinished)
            unfinished.rename(folder)
    return folder


TINY_REPO_ID = "tests/tiny"
TINY_LENGTHS = (24, 40, 27, 33, 30, 36)
TINY_FPS = 10
TINY_IMAGE_SIZE = 32


def tiny_frame(position):
    """An image (32, 32, 3) uint8 of a red dot at `position` (xy in [0, 1]) on blue over green."""
    frame = np.zeros((TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3), np.uint8)
    frame[: TINY_IMAGE_SIZE // 2] = (0, 0, 200)
    frame[TINY_IMAGE_SIZE // 2 :] = (0, 150, 0)
    x, y = (4 + np.asarray(position) * (TINY_IMAGE_SIZE - 9)).round().astype(int)
    frame[y - 3 : y + 4, x - 3 : x + 4] = (230, 20, 10)
    return frame


def tiny_episodes():
    """Per episode the positions before each command and the commands (steps): two arrays (frames, 2) float32."""
    for number, length in enumerate(TINY_LENGTHS):
        rng = np.random.default_rng(number)
        position, positions, actions = rng.uniform(0.2, 0.8, 2), [], []
        for _ in range(length):
            action = rng.uniform(-0.15, 0.15, 2)
            positions.append(position)
            actions.append(action)
            position = np.clip(position + action, 0, 1)
        yield np.array(positions, np.float32), np.array(actions, np.float32)


def write_tiny_lerobot(root: Path, use_videos: bool = True, cameras=("observation.image",)) -> None:
    """Writes the tiny episodes with lerobot itself; further cameras show the same scene mirrored."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = (TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3)
    names = ["height", "width", "channels"]
    features = {key: {"dtype": "video" if use_videos else "image", "shape": size, "names": names} for key in cameras}
    features["observation.state"] = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    features["action"] = {"dtype": "float32", "shape": (2,), "names": ["step_x", "step_y"]}
    dataset = LeRobotDataset.create(TINY_REPO_ID, TINY_FPS, features, root=root, use_videos=use_videos)
    for positions, actions in tiny_episodes():
        for position, action in zip(positions, actions, strict=True):
            frame = tiny_frame(position)
            images = {key: frame if i == 0 else frame[:, ::-1].copy() for i, key in enumerate(cameras)}
            dataset.add_frame({**images, "observation.state": position, "action": action, "task": "Move the dot."})
        dataset.save_episode()
        leave_real_time()
    dataset.finalize()


# A world for the tiny dataset


def random_world(image_size=32, **dynamics_fields):
    torch.manual_seed(0)
    common = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_latent_tokens": 2,
        "latent_dim": 4,
        "context_length": 4,
    }
    layers = {"num_encoder_layers": 4, "num_decoder_layers": 4}
    tokenizer = DreamerTokenizerConfig(image_size=image_size, patch_size=8, **layers, **common)
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, num_signal_levels=8, **common | dynamics_fields)
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics))
    give_weight(world, std=0.1)
    return world.eval()


def give_weight(world: DreamerWorldModel, std: float) -> None:
    """Give weight to projections that start at zero, so that every part matters; less to those of the many layers."""
    for name, parameter in world.named_parameters():
        if not parameter.any():
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(parameter, std=0.06 if is_residual else std)


# A world to play and serve

IMAGE_SIZE = 16


def make_world(**dynamics_fields) -> DreamerWorldModel:
    """A random world of 16-pixel frames whose actions are, by default, targets in [0, 512]²."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "context_length": 4}
    latents = {"num_latent_tokens": 4, "latent_dim": 8}
    stats = {"mean": [250.0, 260.0], "std": [100.0, 90.0], "min": [0.0, 10.0], "max": [512.0, 500.0]}
    fields = {"action_dim": 2, "action_names": ["target_x", "target_y"], "action_stats": stats, "fps": 20}
    tokenizer = DreamerTokenizerConfig(
        image_size=IMAGE_SIZE, patch_size=8, num_encoder_layers=4, num_decoder_layers=4, **latents, **width
    )
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, **(latents | width | fields | dynamics_fields))
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics))
    give_weight(world, std=0.2)
    return world.eval()


def make_starts(num_starts: int = 2, num_frames: int = 3, action_dim: int = 2) -> StartFrames:
    generator = torch.Generator().manual_seed(1)
    shape = (num_starts, num_frames)
    frames = torch.randint(0, 256, (*shape, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8)
    actions = 200 + 100 * torch.rand(*shape, action_dim, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, 0] = False
    return StartFrames(frames, actions * mask[..., None], mask)


def save_world(folder: Path, world: DreamerWorldModel) -> Path:
    """Save a world with start frames: what training leaves."""
    world.save_pretrained(folder)
    save_start_frames(folder, make_starts())
    return folder


# Models to compare with the references

# Where 1 / sqrt(fan_in) would make a deep rollout a chaotic map, in which rounding errors grow without end.
SCALES = {"latent_head": 0.2, "o_proj": 0.5, "down_proj": 0.5}


def shake(model, seed=0):
    """Draw all parameters again, so that every token influences every other without making a rollout chaotic."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                values = 1 + 0.2 * values
            elif parameter.ndim > 1 and name.endswith("weight"):
                values = values / parameter[0].numel() ** 0.5
            parameter.copy_(values * next((scale for part, scale in SCALES.items() if part in name), 1.0))
    return model.eval()


def tokenizer_config(**changes):
    fields = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "num_encoder_layers": 4}
    fields |= {"num_decoder_layers": 4, "num_latent_tokens": 3, "latent_dim": 5, "context_length": 3}
    return DreamerTokenizerConfig(**fields | changes)


def dynamics_config(**changes):
    fields = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 8, "num_latent_tokens": 3}
    fields |= {
        "latent_dim": 5,
        "context_length": 3,
        "num_register_tokens": 2,
        "action_dim": 2,
        "num_signal_levels": 16,
    }
    return DreamerDynamicsConfig(**fields | changes)


def tiny_tokenizer(**changes):
    return shake(DreamerTokenizerModel(tokenizer_config(**changes)))


def tiny_dynamics(**changes):
    return shake(DreamerDynamicsModel(dynamics_config(**changes)), seed=1)


def tiny_world(tokenizer_changes=None, dynamics_changes=None):
    tokenizer, dynamics = tiny_tokenizer(**(tokenizer_changes or {})), tiny_dynamics(**(dynamics_changes or {}))
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics).eval()


PUSHES = {
    "action_stats": {"mean": [0.0, 1.0], "std": [9.0, 9.0], "min": [-36.0, -30.0], "max": [36.0, 36.0]},
    "action_names": ["x", "y"],
    "relative_actions": [True, True],
}
"""Fields of a dynamics config whose actions are displacements, as in PushT."""


def action_distribution(dynamics=PUSHES, **agent_config):
    """The action distribution of an agent in a tiny world."""
    world = {"tokenizer_config": tokenizer_config(), "dynamics_config": dynamics_config(**dynamics)}
    return ActionDistribution(DreamerAgentConfig(world_config=world, **{"num_action_bins": 5} | agent_config))


def tiny_agent(tokenizer_changes=None, dynamics_changes=None, **agent_config):
    """A random agent, whose heads too have random weights, in a random world."""
    world = tiny_world(tokenizer_changes, PUSHES | (dynamics_changes or {}))
    agent = DreamerAgentModel.for_world(
        world, **{"num_action_bins": 5, "num_predicted_steps": 3, "value_range": 3.0} | agent_config
    )
    for part in ("agent_tokens", "eye", "policy_head", "prior_head", "reward_head", "value_head", "continue_head"):
        if getattr(agent, part) is not None:
            shake(getattr(agent, part), seed=len(part))
    return agent.eval()


CAMERAS = {"camera_names": ["front", "wrist"], "num_latent_tokens": 6}
"""Fields of a dynamics config with two cameras of three latent tokens each."""
STATE = {
    "state_dim": 3,
    "num_state_tokens": 2,
    "state_stats": {
        "mean": [1.0, -2.0, 30.0],
        "std": [0.5, 4.0, 0.0],
        "min": [0.0, -9.0, 30.0],
        "max": [2.0, 8.0, 30.0],
    },
    "state_names": ["shoulder", "elbow", "grip"],
    "state_units": ["rad", "rad", ""],
}
"""Fields of a dynamics config with a state, whose last component never moved in the data."""


ARM = {
    "camera_names": ["front", "wrist"],
    "num_latent_tokens": 8,
    "state_dim": 2,
    "state_names": ["lift", "grip"],
    "state_units": ["mm", ""],
    "state_stats": {"mean": [1.0, 5.0], "std": [0.5, 2.0], "min": [0.0, 0.0], "max": [2.0, 10.0]},
}
"""Fields for `make_world`: two cameras, and a state of two components."""


def make_arm_starts(knows_state: bool = True) -> StartFrames:
    """Start frames for `make_world(**ARM)`; the second start has no state unless it `knows_state`."""
    one = make_starts()
    frames = torch.stack([one.pixel_values_videos, one.pixel_values_videos.flip(-1)], dim=2)
    states = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 3, [knows_state] * 3])
    return StartFrames(frames, one.actions, one.action_mask, states, mask)


def tiny_states(*shape, seed=0):
    """States in the units and about the range of `STATE`."""
    mean, std = (torch.tensor(STATE["state_stats"][name]) for name in ("mean", "std"))
    return mean + std * randn(*shape, 3, seed=seed)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Training runs

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY_TOKENIZER = """
hidden_size: 16
num_attention_heads: 2
num_encoder_layers: 4
num_decoder_layers: 4
patch_size: 8
num_latent_tokens: 4
latent_dim: 4
context_length: 4
sequence_length: 4
per_device_batch_size: 4
lr_warmup_steps: 2
max_train_steps: 16
logging_steps: 1
checkpointing_steps: 5
eval_steps: 8
eval_windows: 4
learning_rate: 3e-3
ema_decay: 0.9
max_latent_noise: 0.1
"""
TINY_DYNAMICS = """
hidden_size: 16
num_attention_heads: 2
num_hidden_layers: 4
num_register_tokens: 1
num_signal_levels: 8
context_length: 4
sequence_length: 6
per_device_batch_size: 4
lr_warmup_steps: 2
max_train_steps: 8
logging_steps: 1
checkpointing_steps: 3
eval_steps: 5
eval_windows: 4
learning_rate: 3e-3
"""


def write_moving_square(
    folder: Path,
    episodes: int = 6,
    length: int = 20,
    size: int = 16,
    width: int | None = None,
    with_state: bool = False,
    camera_names: list[str] | None = None,
) -> Path:
    """Episodes of a bright square that each action moves by whole pixels, in frames of `size` x `width` (`size`).

    Its state, if asked for, is where the square is, in pixels; the last episode has none. Of two cameras, the second
    one shows the frames upside down.
    """
    sides = np.array([size, width or size])
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    layout = {"state_dim": 2 if with_state else 0, "camera_names": camera_names}
    with write_shard(folder / shard_name(0), action_dim=2, **layout) as shard:
        for episode in range(episodes):
            shard.begin_episode(episode)
            actions = rng.integers(-2, 3, (length, 2)).astype(np.float32)
            corner = rng.integers(0, sides - 4)
            corners = []
            for action in actions:
                corners.append(corner)
                frame = np.full((*sides, 3), 30, np.uint8)
                frame[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = (250, 200, 40)
                shard.add_frame(frame)
                if camera_names:
                    shard.add_frame(frame[::-1], camera=1)
                corner = np.clip(corner + action.astype(int), 0, sides - 4)
            has_state = with_state and episode < episodes - 1
            shard.end_episode(actions, np.array(corners, np.float32) if has_state else None)
        state_stats = shard.state_statistics.to_dict()
    stats = {"mean": [0.0, 0.0], "std": [1.4, 1.4], "min": [-2.0, -2.0], "max": [2.0, 2.0], "count": episodes * length}
    labels = {"action_names": ["dy", "dx"], "action_units": ["px", "px"], "camera_names": camera_names}
    if with_state:
        labels |= {
            "state_shape": (2,),
            "state_names": ["y", "x"],
            "state_units": ["px", "px"],
            "state_stats": state_stats,
        }
    metadata = ShardMetadata(
        1, episodes, (int(sides[0]), int(sides[1]), 3), (2,), fps=10.0, color_order="rgb", action_stats=stats, **labels
    )
    metadata.write(folder)
    return folder


def script_environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}


def script_command(name: str, *argv) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"train_{name}.py"), *map(str, argv)]


def run_script(name: str, *argv, status: int = 0) -> subprocess.CompletedProcess:
    """Runs examples/train_<name>.py to its end and checks its exit status."""
    result = run_command(EXAMPLES / f"train_{name}.py", *argv)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def train(name: str, *argv) -> None:
    """Do what the script does in this process, which saves an import of torch. Errors come out as exceptions."""
    from accelerate.state import AcceleratorState

    from dreamer_hf.training.runs import main

    AcceleratorState._reset_state(reset_partial_state=True)
    main(name, list(map(str, argv)))


def arguments_of(kind: str, **values):
    """Return the options of a run with these flat values, and defaults for all others."""
    from dreamer_hf.training.runs import KINDS

    given = {"data_dir": "data", "output_dir": "out"}
    if kind == "dynamics":
        given["tokenizer"] = "t"
    return KINDS[kind][0].of(**given | values)


def read_metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def loss_curve(folder: Path) -> list[dict]:
    """Return what must not depend on when and how often a run was stopped: everything but the speed and memory."""
    from dreamer_hf.training.run_metrics import MACHINE_METRICS

    return [{k: v for k, v in line.items() if k not in MACHINE_METRICS} for line in read_metrics(folder)]

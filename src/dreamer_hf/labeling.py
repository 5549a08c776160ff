"""Rewards of recorded episodes, computed by reward functions: what `dreamer label` does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .data.command_options import LabelOptions
from .data.labels import Labels, data_fingerprint, label_path, write_labels
from .data.shard_dataset import ShardDataset
from .reward_functions import reward_function
from .reward_signal import RewardFunction

REACH = "pusht:reach"


def label_shards(options: LabelOptions) -> str:
    """Label all episodes of a folder of shards, and return where the labels are and what they say.

    Raises:
        FileNotFoundError, ValueError: data that is missing or damaged or holds no frames, or an unknown reward
            function.
    """
    functions = [reward_function(name) for name in reward_names(options.reward, options.to)]
    names = tuple(options.task_names) or tuple(function.name for function in functions)
    if len(names) != len(functions) or len(set(names)) < len(names):
        raise ValueError(f"expected a different name for each of {len(functions)} tasks, got {', '.join(names)}.")
    data = ShardDataset(options.data_dir, None, split="all")
    if data.repo_id is not None:
        raise ValueError(f"{options.data_dir} is on the Hub: download it to a folder, and label that.")
    if data.image_size is None:
        raise ValueError(
            f"{options.data_dir} holds latents, and rewards are computed from frames: label the folder of frames, and "
            "give its labels/NAME.npz as --labels in training."
        )
    labels = compute_labels(data, functions, names)
    path = label_path(Path(options.data_dir), options.name)
    write_labels(path, labels, data_fingerprint(data))
    return f"wrote {path}\n{summary(labels)}"


def reward_names(names: Sequence[str], spots: Sequence[float]) -> list[str]:
    """Return the full names of reward functions: each `pusht:reach` gets a spot of `--to`.

    Raises:
        ValueError: spots without a task, or a task without a spot.
    """
    bare = [name for name in names if name == REACH]
    if len(spots) % 2 or (spots and not bare) or (bare and not spots):
        raise ValueError(
            f"expected x and y of a spot for each --reward {REACH}, got {len(spots)} numbers: give --to X Y, or write "
            f"--reward {REACH}:X,Y."
        )
    places = [f"{REACH}:{x:g},{y:g}" for x, y in zip(spots[::2], spots[1::2])]
    if len(bare) == 1:  # One task for every spot.
        return [full for name in names for full in (places if name == REACH else [name])]
    if len(bare) != len(places):
        raise ValueError(f"expected a spot for each of {len(bare)} times {REACH}, got {len(places)}: give --to X Y.")
    remaining = iter(places)
    return [next(remaining) if name == REACH else name for name in names]


def compute_labels(data: ShardDataset, functions: Sequence[RewardFunction], names: tuple[str, ...]) -> Labels:
    """Return the rewards of all episodes of a dataset of frames, one task for each function."""
    rewards, successes = [], []
    for position in tqdm(range(data.num_episodes), desc="labeling", unit="episode"):
        item = data.episode(position)
        frames = item["pixel_values_videos"].movedim(-3, -1).numpy()
        has_states = "states" in item and bool(item["state_mask"].all())
        signals = [function(frames, item["states"].numpy() if has_states else None) for function in functions]
        rewards.append(np.stack([signal.rewards for signal in signals], axis=-1).astype(np.float32))
        successes.append(np.stack([signal.successes for signal in signals], axis=-1))
    return Labels(names, rewards, successes)


def summary(labels: Labels) -> str:
    """Return a line for each task: its mean reward, its range, and how often it is solved and unknown."""
    lines, rewards, successes = [], np.concatenate(labels.rewards), np.concatenate(labels.successes)
    ends = np.array([success[-1] for success in labels.successes])
    for column, name in enumerate(labels.task_names):
        known = rewards[:, column][~np.isnan(rewards[:, column])]
        if not len(known):
            lines.append(f"{name}: unknown in every frame")
            continue
        lines.append(
            f"{name}: mean {known.mean():.3f}, from {known.min():.3g} to {known.max():.3g}; solved in "
            f"{successes[:, column].mean():.1%} of the frames and at the end of {ends[:, column].mean():.1%} of the "
            f"episodes; unknown in {1 - len(known) / len(rewards):.1%} of the frames"
            + (" (it never varies: nothing can be learned from it)" if known.min() == known.max() else "")
        )
    return "\n".join(lines)


__all__ = ["compute_labels", "label_shards", "reward_names", "summary"]

"""Labels of episodes: what each frame was worth for each of several tasks. They lie next to the shards, in
`labels/NAME.npz`, so one data set serves many tasks, and shards of frames and of latents share their labels.

Shapes: E episodes, T frames of one of them, Q tasks.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import first_line, replacing
from .shards import UNREADABLE

LABEL_FOLDER = "labels"
DEFAULT_NAME = "rewards"
KEYS = ("task_names", "rewards", "successes", "lengths", "fingerprint")


@dataclass(frozen=True)
class Labels:
    """The rewards of all episodes of a dataset for Q tasks.

    Attributes:
        task_names: names of the Q tasks, for people and for `DreamerAgentConfig.task_names`.
        rewards: for each of E episodes, float32 (T,Q): `rewards[t]` is what arriving at frame t was worth. NaN where
            that is unknown; for all frames of an episode if nobody labeled it.
        successes: for each episode, bool (T,Q), whether the task is solved at a frame.
        terminals: for each episode, bool (T,), whether it ended at a frame for good; None if the data do not say.
    """

    task_names: tuple[str, ...]
    rewards: list[np.ndarray]
    successes: list[np.ndarray]
    terminals: list[np.ndarray] | None = None

    def __post_init__(self):
        for rewards in self.rewards:
            if rewards.ndim != 2 or rewards.shape[1] != len(self.task_names):
                raise ValueError(
                    f"expected one reward per frame for each of {len(self.task_names)} tasks, got {rewards.shape}."
                )

    def task_number(self, name: str) -> int:
        """Return the number of a task.

        Raises:
            ValueError: the labels do not know it.
        """
        if name not in self.task_names:
            raise ValueError(
                f"the labels do not know the task {name!r}: choose one of {', '.join(self.task_names)}, or label the "
                "data for it with dreamer label."
            )
        return self.task_names.index(name)

    def select(self, names: Sequence[str]) -> "Labels":
        """Return the labels of some tasks only, in the order of their names.

        Raises:
            ValueError: the labels do not know one of them.
        """
        columns = [self.task_number(name) for name in names]
        parts = ([part[:, columns] for part in parts] for parts in (self.rewards, self.successes))
        return Labels(tuple(names), *parts, self.terminals)

    def check_useful(self) -> None:
        """Check that there is something to learn.

        Raises:
            ValueError: no frame has a reward for some task, or its reward never varies.
        """
        for column, name in enumerate(self.task_names):
            known = np.concatenate([rewards[:, column] for rewards in self.rewards])
            known = known[~np.isnan(known)]
            if not len(known):
                raise ValueError(f"no frame has a reward for the task {name!r}: label data in which it can be seen.")
            if known.min() == known.max():
                raise ValueError(
                    f"the reward for the task {name!r} is {known[0]:g} in every frame, so there is nothing to learn: "
                    "record episodes in which it is solved better and worse, or choose another reward."
                )


def label_path(data_dir: Path, name: str) -> Path:
    """Return the file of the labels called `name` of a shard folder; a name with a suffix or a slash is a path."""
    if name.endswith(".npz") or "/" in name:
        return Path(name)
    return data_dir / LABEL_FOLDER / f"{name}.npz"


def data_fingerprint(dataset) -> str:
    """Return what identifies the episodes of a `ShardDataset`, whether it holds frames or latents of them.

    It covers their lengths, their numbers in the source, the statistics of their actions and how they were converted.
    """
    index, metadata = dataset.index, dataset.metadata
    digest = hashlib.sha256()
    for values in (index.lengths.astype(np.int64), index.source_episodes.astype(np.int64)):
        digest.update(np.ascontiguousarray(values).tobytes())
    described = {"actions": metadata.action_stats, "conversion": metadata.conversion, "source": metadata.source}
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def write_labels(path: Path, labels: Labels, fingerprint: str) -> None:
    """Write labels, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "task_names": np.array(labels.task_names),
        "rewards": np.concatenate(labels.rewards),
        "successes": np.concatenate(labels.successes),
        "lengths": np.array([len(rewards) for rewards in labels.rewards], np.int64),
        "fingerprint": np.array(fingerprint),
    }
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_labels(path: Path, dataset) -> Labels:
    """Read the labels of a `ShardDataset`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or it belongs to other data.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, and an agent needs rewards: make it with dreamer label --data_dir "
            f"{dataset.data_dir} --reward NAME, or convert the data with --reward_key."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            names, rewards, successes, lengths, fingerprint = (file[key] for key in KEYS)
        _check_arrays(names, rewards, successes, lengths)
    except (*UNREADABLE, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): make the labels again.") from error
    if str(fingerprint) != data_fingerprint(dataset):
        raise ValueError(
            f"{path} belongs to other episodes than those of {dataset.data_dir}, which changed or were converted "
            "again: make the labels again with dreamer label."
        )
    ends = np.cumsum(lengths)[:-1]
    return Labels(tuple(map(str, names)), np.split(rewards, ends), np.split(successes, ends))


def _check_arrays(names: np.ndarray, rewards: np.ndarray, successes: np.ndarray, lengths: np.ndarray) -> None:
    is_right = names.ndim == 1 and names.dtype.kind == "U" and len(set(names.tolist())) == len(names) > 0
    is_right &= rewards.dtype == np.float32 and rewards.ndim == 2 and rewards.shape[1:] == names.shape
    is_right &= successes.dtype == bool and successes.shape == rewards.shape
    is_right &= lengths.ndim == 1 and lengths.dtype.kind == "i" and lengths.min(initial=0) >= 0
    if not is_right or lengths.sum() != len(rewards) or np.isinf(rewards).any():
        raise ValueError("its arrays do not fit each other")


__all__ = ["Labels", "data_fingerprint", "label_path", "read_labels", "write_labels"]

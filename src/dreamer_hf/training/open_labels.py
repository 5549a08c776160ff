"""The labels of a run: which rewards, for which tasks."""

from collections.abc import Sequence

from ..data import ShardDataset
from ..data.labels import DEFAULT_NAME, Labels, label_path, read_labels


def open_labels(data: ShardDataset, name: str | None, tasks: Sequence[str] | None) -> Labels:
    """Return the labels of a dataset, of all its episodes.

    Args:
        data: the dataset, any split of it.
        name: of the labels, or a path; None for the rewards in the shards or, if these have none, for the labels
            called `rewards`.
        tasks: names of the tasks to keep; None for all.

    Raises:
        FileNotFoundError: there are no labels.
        ValueError: they are damaged, belong to other data, do not know a task, or never vary.
    """
    labels = data.recorded_labels() if name is None else None
    if labels is None:
        labels = read_labels(label_path(data.data_dir, name or DEFAULT_NAME), data)
    if tasks is not None:
        labels = labels.select(tasks)
    labels.check_useful()
    return labels


__all__ = ["open_labels"]

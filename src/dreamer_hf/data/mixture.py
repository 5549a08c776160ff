"""Several datasets as one, also where only some of them have actions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from .action_data import ActionStatistics
from .shard_dataset import ShardDataset


class MixtureDataset(Dataset):
    """The windows of several datasets one after another; draw from it with `MixtureBatchSampler`.

    Datasets without actions or states take part: their items carry zeros of the common width and an `action_mask` or
    `state_mask` of False.

    Args:
        datasets: `ShardDataset` or alike; same frame size, rate, alignment and (where there are actions or
            states) widths of these.

    Raises:
        ValueError: there is none, or they do not go together.
    """

    def __init__(self, datasets: Sequence[ShardDataset]):
        if not datasets:
            raise ValueError("a mixture needs at least one dataset.")
        self.datasets = list(datasets)
        for name in ("image_size", "fps", "action_offset"):
            self._agreed(name, [getattr(dataset, name) for dataset in datasets])
        self._agreed("camera_names", [tuple(dataset.camera_names or ()) for dataset in datasets])
        self.camera_names = datasets[0].camera_names
        labeled = [dataset for dataset in datasets if dataset.action_dim]
        self.action_dim = self._agreed("action_dim", [dataset.action_dim for dataset in labeled]) or 0
        self.action_names = labeled[0].action_names if labeled else None
        self.action_units = labeled[0].action_units if labeled else None
        with_state = [dataset for dataset in datasets if dataset.state_dim]
        self.state_dim = self._agreed("state_dim", [dataset.state_dim for dataset in with_state]) or 0
        self.state_names = with_state[0].state_names if with_state else None
        self.state_units = with_state[0].state_units if with_state else None
        first = self.datasets[0]
        self.image_size, self.num_channels = first.image_size, first.num_channels
        self.fps, self.action_offset = first.fps, first.action_offset
        self._offsets = np.cumsum([0, *self.sizes])

    @property
    def sizes(self) -> list[int]:
        """Windows of each dataset, as the samplers take them."""
        return [len(dataset) for dataset in self.datasets]

    @property
    def action_stats(self) -> dict | None:
        """Statistics of all actions together; None where no dataset has any."""
        return _joined_statistics([dataset.action_stats for dataset in self.datasets], self.action_dim)

    @property
    def state_stats(self) -> dict | None:
        """Statistics of all states together; None where no dataset has any."""
        return _joined_statistics(
            [dataset.state_stats for dataset in self.datasets if dataset.state_dim], self.state_dim
        )

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} does not exist: there are {len(self)}.")
        component = int(np.searchsorted(self._offsets, index, side="right")) - 1
        item = self.datasets[component][index - int(self._offsets[component])]
        if item["actions"].shape[1] != self.action_dim:
            item["actions"] = torch.zeros(len(item["actions"]), self.action_dim)
        if self.state_dim and "states" not in item:
            length = len(item["actions"])
            item["states"], item["state_mask"] = torch.zeros(length, self.state_dim), torch.zeros(length).bool()
        return item

    @staticmethod
    def _agreed(name: str, values: list):
        if len(set(values)) > 1:
            raise ValueError(f"datasets of one mixture must have the same {name}, not {values}: convert them alike.")
        return values[0] if values else None


def _joined_statistics(parts: list[dict | None], width: int) -> dict | None:
    """Return the statistics of several samples together; those that do not say of how many are left out."""
    total = ActionStatistics.empty(width)
    for stats in parts:
        if stats is not None and "count" in stats:
            total = total.merge(ActionStatistics.from_dict(stats))
    return total.to_dict()

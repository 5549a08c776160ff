"""Several datasets as one, also where only some of them have actions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from .action_data import ActionStatistics
from .shard_dataset import ShardDataset


class MixtureDataset(Dataset):
    """The windows of several datasets one after another; draw from it with `MixtureBatchSampler`.

    Datasets without actions take part: their items carry zeros of the common width and an `action_mask` of False.

    Args:
        datasets: `ShardDataset` or alike; same frame size, rate, alignment and (where there are actions) action width.

    Raises:
        ValueError: there is none, or they do not go together.
    """

    def __init__(self, datasets: Sequence[ShardDataset]):
        if not datasets:
            raise ValueError("a mixture needs at least one dataset.")
        self.datasets = list(datasets)
        for name in ("image_size", "fps", "action_offset"):
            self._agreed(name, [getattr(dataset, name) for dataset in datasets])
        labeled = [dataset for dataset in datasets if dataset.action_dim]
        self.action_dim = self._agreed("action_dim", [dataset.action_dim for dataset in labeled]) or 0
        self.action_names = labeled[0].action_names if labeled else None
        self.action_units = labeled[0].action_units if labeled else None
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
        known = [d.action_stats for d in self.datasets if d.action_stats is not None and "count" in d.action_stats]
        total = ActionStatistics.empty(self.action_dim)
        for stats in known:
            total = total.merge(ActionStatistics.from_dict(stats))
        return total.to_dict()

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} does not exist: there are {len(self)}.")
        component = int(np.searchsorted(self._offsets, index, side="right")) - 1
        item = self.datasets[component][index - int(self._offsets[component])]
        if item["actions"].shape[1] != self.action_dim:
            item["actions"] = torch.zeros(len(item["actions"]), self.action_dim)
        return item

    @staticmethod
    def _agreed(name: str, values: list):
        if len(set(values)) > 1:
            raise ValueError(f"datasets of one mixture must have the same {name}, not {values}: convert them alike.")
        return values[0] if values else None

"""Data: recording, converting, storing and reading episodes. Imports no model code."""

from .mixture import MixtureDataset
from .sampler import AlternatingBatchSampler, MixtureBatchSampler, WindowBatchSampler
from .shard_dataset import ShardDataset, collate_windows

__all__ = [
    "AlternatingBatchSampler",
    "MixtureBatchSampler",
    "MixtureDataset",
    "ShardDataset",
    "WindowBatchSampler",
    "collate_windows",
]

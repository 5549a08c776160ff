"""Data: recording, converting, storing and reading episodes. Imports no model code."""

from .sampler import WindowBatchSampler
from .shard_dataset import ShardDataset, collate_windows

__all__ = ["ShardDataset", "WindowBatchSampler", "collate_windows"]

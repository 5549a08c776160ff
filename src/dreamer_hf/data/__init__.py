"""Data: recording, converting, storing and reading episodes. Imports no model code.

Names are imported when they are first used, so that converters and their worker processes start without torch.
"""

from importlib import import_module

_MODULE_OF = {
    "AlternatingBatchSampler": "sampler",
    "EpisodeWindows": "windows",
    "LeRobotWindows": "lerobot_windows",
    "MixtureBatchSampler": "sampler",
    "MixtureDataset": "mixture",
    "ShardDataset": "shard_dataset",
    "WindowBatchSampler": "sampler",
    "collate_windows": "windows",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value

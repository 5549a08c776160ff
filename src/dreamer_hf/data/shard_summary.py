"""What the metadata of a folder needs to know about each of its shards."""

from dataclasses import dataclass
from pathlib import Path

from .action_data import ActionStatistics
from .files import first_line
from .output_folder import OutputFolder
from .shard_writer import read_shard_statistics
from .shards import IMAGES, UNREADABLE, ShardIndex, damaged_shard, shard_index_of, shard_name, stored_array


@dataclass(frozen=True)
class ShardSummary:
    """What the metadata needs of one shard.

    Attributes:
        index: its episodes.
        frame_shape: (H, W, 3), or None without episodes.
        statistics: of its actions ("action") and states ("state").
    """

    index: ShardIndex
    frame_shape: tuple[int, ...] | None
    statistics: dict[str, ActionStatistics]


def summarize_shard(folder: OutputFolder, shard: int, kinds: list[str]) -> ShardSummary:
    """Read the summary of a complete shard.

    Args:
        folder: where it is.
        shard: its number.
        kinds: what to read the statistics of: "action", and perhaps "state".

    Raises:
        FileNotFoundError, ValueError: it is missing, damaged, or has cameras of different sizes.
    """
    path = Path(str(folder), shard_name(shard))
    with folder.open_shard(shard_name(shard)) as file:
        index = shard_index_of(file, path, shard)
        arrays = [name for name in file if name.startswith(IMAGES)]
        shapes = {stored_array(file, name, path).shape[2:] for name in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"the cameras have frames of different sizes ({' and '.join(map(str, sorted(shapes)))}): give --width "
                "and --height to bring them to one size."
            )
        try:
            statistics = {kind: read_shard_statistics(file, kind) for kind in kinds}
        except (KeyError, ValueError, *UNREADABLE) as error:
            raise damaged_shard(path, first_line(error)) from error
    return ShardSummary(index, next(iter(shapes), None), statistics)


__all__ = ["ShardSummary", "summarize_shard"]

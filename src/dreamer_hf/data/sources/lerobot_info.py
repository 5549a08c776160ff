"""What a LeRobotDataset says about itself: its place, its `meta/info.json`, names and units of its features."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import check_not_lfs_pointer, first_line

INFO_PATH, TASKS_PATH = "meta/info.json", "meta/tasks.parquet"
MAX_ACTION_DIM = 1 << 16
AGAIN = "download the dataset again"


def read_info(root: Path, repo_id: str) -> dict:
    """Read `meta/info.json` of a v3.0 dataset.

    Raises:
        FileNotFoundError, ValueError: no dataset there, damaged, or of an older format (the message says how to
            migrate).
    """
    path = Path(root) / INFO_PATH
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder of a LeRobotDataset with --local_dir.")
    check_not_lfs_pointer(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): {AGAIN}.") from error
    if version.startswith(("v1", "v2")):
        raise ValueError(
            f"{repo_id} is a LeRobot dataset of format {version}: {migration_advice(version, root, repo_id)}"
        )
    if not version.startswith("v3"):
        raise ValueError(f"{path} describes no LeRobot dataset of format v3.0 (it says {version}): {AGAIN}.")
    try:
        _check_info(info)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): {AGAIN}.") from error
    return info


def read_tasks(root: Path) -> list[str]:
    """Return the texts of a dataset's tasks in the order of their `task_index`; nothing if it does not list them.

    Raises:
        ValueError: the list is damaged.
    """
    path = Path(root) / TASKS_PATH
    if not path.is_file():
        return []
    check_not_lfs_pointer(path)
    try:
        columns = pq.read_table(path).to_pydict()
        numbers, (texts,) = columns.pop("task_index"), columns.values()
        found = dict(zip(map(int, numbers), map(str, texts), strict=True))
        if sorted(found) != list(range(len(found))) or len(set(found.values())) < len(found):
            raise ValueError("its tasks are not numbered from 0, or occur twice")
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): {AGAIN}.") from error
    return [found[number] for number in range(len(found))]


def migration_advice(version: str, root: Path, repo_id: str) -> str:
    """Return how to bring a dataset of an older format to v3.0: a command that neither looks elsewhere nor uploads."""
    if not version.startswith("v2.1"):
        return (
            "lerobot of today migrates v2.1 only, so bring it to v2.1 with an older one first (0.3.3 has the step "
            "from v2.0), then to v3.0."
        )
    is_download = "snapshots" in Path(root).parts  # Only its metadata is here.
    folder = Path(root.name if not is_download else f"{repo_id.rpartition('/')[2]}-v3")
    folder = folder if is_download else Path(root)
    return (
        f"migrate it to v3.0 with `python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id} "
        f"--root={folder} --push-to-hub=false`, then give --local_dir {folder}."
    )


def _check_info(info: dict) -> None:
    """Raise an error about whatever is missing or impossible in `info.json`."""
    if not 0 < float(info["fps"]) < math.inf:
        raise ValueError(f"fps is {info['fps']}")
    for key, item in info["features"].items():
        sizes = [int(size) for size in item["shape"]]
        if not isinstance(item["dtype"], str) or min(sizes, default=1) < 1 or math.prod(sizes) > 1 << 31:
            raise ValueError(f"feature {key} is {item}")
        if is_numeric(item) and math.prod(sizes) > MAX_ACTION_DIM:
            raise ValueError(f"feature {key} has shape {sizes}")
    total = info.get("total_episodes")
    if total is not None and not isinstance(total, int):
        raise ValueError(f"total_episodes is {total!r}")
    # Fill in the patterns of file names once, so that wrong ones fail here.
    inside(info["data_path"].format(chunk_index=0, file_index=0), "data_path")
    if any(item["dtype"] == "video" for item in info["features"].values()):
        inside(info["video_path"].format(video_key="x", chunk_index=0, file_index=0), "video_path")


def inside(path: str, where: str) -> str:
    """Return a path of a dataset unless it leads out of the dataset's folder, to other files of this machine."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise ValueError(f"{where} names a file outside the dataset ({path}): {AGAIN}.")
    return path


def local_root(repo_id: str, local_dir: str | Path | None) -> Path | None:
    """Return where a dataset lies on this machine: `local_dir`, the folder `repo_id`, or lerobot's own folder of
    recordings; None if nowhere."""
    if local_dir is not None:
        return Path(local_dir)
    folders = [Path(repo_id).expanduser(), lerobot_home() / repo_id]
    return next((folder for folder in folders if (folder / INFO_PATH).is_file()), None)


def lerobot_home() -> Path:
    default = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "lerobot"
    return Path(os.environ.get("HF_LEROBOT_HOME", default)).expanduser()


def flatten_names(names, action_dim: int) -> list[str] | None:
    """Return LeRobot's `names` in any of its spellings as one list of `action_dim` names, or None."""
    if isinstance(names, dict):
        by_position = all(isinstance(value, int) for value in names.values())
        names = list(names if by_position else names.values())
    flat = [str(name) for name in _leaves(names)] if isinstance(names, list) else []
    return flat if len(flat) == action_dim else None


def _leaves(names) -> Iterator:
    for name in names:
        if isinstance(name, list | tuple):
            yield from _leaves(name)
        else:
            yield name


def find_units(feature: dict, action_dim: int) -> list[str] | None:
    """Return the unit of each dimension if the recording names them in the feature, or None.

    LeRobot has no field for units, but keeps additional keys of a feature: "units" (or "unit"), next to "names"
    or within "info", as one text for all dimensions or a list of one each.
    """
    info = feature.get("info") or {}
    found = next((place[key] for place in (feature, info) for key in ("units", "unit") if place.get(key)), None)
    return [found] * action_dim if isinstance(found, str) else flatten_names(found, action_dim)


def is_numeric(feature: dict) -> bool:
    return str(feature["dtype"]).startswith(("float", "double", "int", "uint", "bool"))

"""The options of the commands that convert data and inspect it. Imports nothing that takes time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..options import option, ray_option

if TYPE_CHECKING:
    from .episodes import EpisodeSource

STORAGE, WORK, SHARING = "storage", "work", "sharing"


@dataclass(kw_only=True)
class ConverterOptions:
    """What every converter can be asked for, whatever its source. A kind of source adds its own options."""

    output_dir: str = option(
        help="Write the shards to this new or empty folder, or to an address such as s3://bucket/data."
    )
    episodes_per_shard: int = option(100, group=STORAGE, help="Store this many episodes per shard.")
    target_fps: float | None = option(
        None, group=STORAGE, help="Keep every n-th frame to reach this rate. Defaults to keeping all."
    )
    width: int | None = option(
        None, group=STORAGE, help="Resize frames to this width. Defaults to the width of the source."
    )
    height: int | None = option(
        None, group=STORAGE, help="Resize frames to this height. Defaults to the height of the source."
    )
    pad_to_square: bool = option(
        False, group=STORAGE, help="Keep the aspect ratio and pad with black to a square, instead of stretching."
    )
    min_episode_length: int = option(1, group=STORAGE, help="Drop episodes of which fewer frames are kept.")
    relative_actions: bool = option(
        False, group=STORAGE, help="Store each action minus the one of the kept frame before, 0 for the first."
    )
    absolute_action_dims: tuple[int, ...] = option(
        (),
        group=STORAGE,
        metavar="DIM",
        help="With --relative_actions, leave these dimensions (a gripper) as recorded.",
    )
    displacement_action_dims: tuple[str, ...] = option(
        (),
        group=STORAGE,
        metavar="DIM",
        help="Treat these dimensions (or `all`) as displacements: --target_fps adds up those between kept frames.",
    )
    compression: str = option(
        "zstd",
        choices=("zstd", "gzip"),
        group=STORAGE,
        help="Compress frames with this codec; gzip is for readers without hdf5plugin.",
    )
    num_workers: int | None = option(None, group=WORK, help="Use this many processes. Defaults to one per core.")
    resume: bool = option(False, group=WORK, help="Continue an interrupted conversion.")
    ray: str | None = ray_option(group=WORK)
    push_to_hub: str | None = option(
        None, group=SHARING, metavar="REPO", help="Upload the finished folder as this dataset repository."
    )
    private: bool = option(False, group=SHARING, help="Make the repository private.")

    def open_source(self) -> "EpisodeSource":
        """Open the source; only now is its library imported."""
        raise NotImplementedError


@dataclass(kw_only=True)
class LeRobotOptions(ConverterOptions):
    """Options of the converter of LeRobot datasets."""

    repo_id: str = option(help="Read the dataset of this name, such as lerobot/pusht, or in this folder.")
    local_dir: str | None = option(
        None, help="Read it from this folder. Defaults to LeRobot's recordings, then the Hub."
    )
    revision: str | None = option(
        None, help="Read this branch, tag or commit on the Hub. Defaults to LeRobot's tag v3.0, then main."
    )
    image_key: str | None = option(None, help="Use this camera, or several: a,b. Defaults to the only one.")
    tile_cameras: bool = option(False, help="Join several cameras to one frame, side by side.")
    action_key: str = option("action", help="Take actions from this feature, or join several: a,b.")
    state_key: str | None = option(
        None,
        help="Take the state from this feature, or join several: a,b; `none` for no state. Defaults to "
        "observation.state if there is one.",
    )
    reward_key: str | None = option(
        None, help="Take rewards from this feature, such as next.reward, for agents. Defaults to no rewards."
    )
    terminal_key: str | None = option(
        None, help="Feature that says that an action ended its episode for good, not only the recording."
    )
    episodes: str | None = option(None, help="Convert only these episodes, like 0:100 or 3,8,10:20. Defaults to all.")

    def open_source(self) -> "EpisodeSource":
        from .sources.lerobot_source import LeRobotSelection

        chosen = self.image_key, self.action_key, self.episodes, self.revision, self.state_key, self.tile_cameras
        rewards = self.reward_key, self.terminal_key
        return LeRobotSelection(self.repo_id, self.local_dir, *chosen, *rewards).open()


@dataclass(kw_only=True)
class RldsOptions(ConverterOptions):
    """Options of the converter of RLDS datasets."""

    rlds_dir: str = option(help="Read the dataset whose dataset_info.json is in this folder or below it.")
    split: str = option("train", help="Read this split: train, success+failure, train[:10%].")
    image_key: str | None = option(
        None, help="Use these images of a step, like observation/image, or several cameras: a,b."
    )
    tile_cameras: bool = option(False, help="Join several cameras to one frame, side by side.")
    action_key: str = option("action", help="Take actions from this feature, or join several: a,b.")
    state_key: str | None = option(
        None,
        help="Take the state from this feature, or join several: a,b; `none` for no state. Defaults to "
        "observation/state if there is one.",
    )
    reward_key: str | None = option(
        None, help="Take rewards from this feature, usually reward, for agents. Defaults to no rewards."
    )
    fps: float | None = option(None, help="Frame rate of the dataset, which does not specify it.")
    episodes: str | None = option(None, help="Convert only these episodes of the split, like 0:100. Defaults to all.")
    skip_corrupt: bool = option(False, help="Leave out damaged records and log their number.")

    def open_source(self) -> "EpisodeSource":
        from .sources.rlds_source import RldsSource

        chosen = self.image_key, self.action_key, self.fps, self.episodes, self.skip_corrupt
        return RldsSource(self.rlds_dir, self.split, *chosen, self.state_key, self.tile_cameras, self.reward_key)


@dataclass(kw_only=True)
class TableOptions(ConverterOptions):
    """Options of the converter of tables of the `datasets` library."""

    dataset: str = option(help="Read the dataset of this name on the Hub, or in this folder.")
    config: str | None = option(None, help="Read this configuration of the dataset. Defaults to the only one.")
    split: str = option("train", help="Read this split.")
    streaming: bool = option(False, help="Read while downloading, in one process.")
    image_column: str = option(
        help="Take images, or videos, from this column (within a struct: a/b); several columns of images, separated "
        "by commas, are several cameras."
    )
    action_column: str | None = option(
        None, help="Take actions from this column, or join several: a,b. Defaults to no actions."
    )
    state_column: str | None = option(
        None, help="Take the state from this column, or join several: a,b. Defaults to no state."
    )
    episode_column: str | None = option(None, help="Tell episodes apart by this column; videos do not need it.")
    fps: float | None = option(None, help="Frame rate of the dataset; uneven videos are sampled at it.")
    episodes: str | None = option(None, help="Convert only these episodes, like 0:100. Defaults to all.")

    def open_source(self) -> "EpisodeSource":
        from .sources.table_source import TableColumns, TableSource, load_table

        table = load_table(self.dataset, self.split, self.config, self.streaming)
        columns = TableColumns(self.image_column, self.action_column, self.episode_column, self.state_column)
        origin = {"dataset": self.dataset, "config": self.config, "split": self.split}
        return TableSource(table, columns, self.fps, origin, self.episodes)


@dataclass(kw_only=True)
class VideoOptions(ConverterOptions):
    """Options of the converter of video files."""

    video_dir: str = option(help="Read the videos in this folder and its subfolders.")
    fps: float | None = option(
        None, help="Frame rate of the files; uneven ones are sampled at it. Defaults to what they specify."
    )
    episodes: str | None = option(
        None, help="Convert only these files, in the order of their names, like 0:100. Defaults to all."
    )

    def open_source(self) -> "EpisodeSource":
        from .sources.video_source import VideoSource

        return VideoSource(self.video_dir, self.fps, self.episodes)


@dataclass(kw_only=True)
class InspectOptions:
    """Options of `inspect_shards`."""

    data_dir: str = option(positional=True, help="Folder of shards, or a dataset repository on the Hub.")
    window_size: int = option(32, help="Count windows of this many frames.")
    stride: int = option(1, help="Count windows that start this many frames apart.")
    train_fraction: float = option(0.9, help="Share of the episodes that training uses.")
    preview: str | None = option(None, metavar="FILE.png", help="Write a contact sheet to this file.")
    color_order: str | None = option(
        None, choices=("rgb", "bgr"), help="Order of the color channels, if the shards do not specify it."
    )
    verify: bool = option(False, help="Read everything and test every checksum.")
    write_index: bool = option(False, help="Write the index, with which large folders open without delay.")


@dataclass(kw_only=True)
class LabelOptions:
    """Options of `label_shards`."""

    data_dir: str = option(help="Folder of shards of frames.")
    reward: tuple[str, ...] = option(
        help="Reward functions, one for each task: pusht:coverage, pusht:reach:X,Y, pusht:push:right (left, up, "
        "down), or a function of your own, package.module:function.",
        metavar="NAME",
    )
    to: tuple[float, ...] = option(
        (), help="With --reward pusht:reach, the spot: x and y in 0 to 512; several spots make several tasks."
    )
    task_names: tuple[str, ...] = option(
        (), metavar="NAME", help="Name of each task. Defaults to the names of the reward functions."
    )
    name: str = option("rewards", help="Write the labels to labels/NAME.npz in the folder.")


__all__ = [
    "ConverterOptions",
    "InspectOptions",
    "LabelOptions",
    "LeRobotOptions",
    "RldsOptions",
    "TableOptions",
    "VideoOptions",
]

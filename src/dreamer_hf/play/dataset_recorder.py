"""Recording what was dreamt as a LeRobotDataset, to train on or to look at with the tools of real data."""

import os
from pathlib import Path

import numpy as np

from ..action_space import ActionSpace

IMAGE_KEY = "observation.image"
TASK = "Play in a dreamt world."


class DatasetRecorder:
    """Writes steps to a LeRobotDataset (v3.0) folder that appears under its name when the recorder is closed.

    As in recorded data, row t holds a frame and, with `action_offset` 1, the action given while it was shown (with 0,
    the action dreamt together with it). A reset or a rewind ends the episode, so that no episode jumps in time. Only an
    episode of a single row is left out: LeRobot 0.6 cannot store one.

    Args:
        path: the folder to make; it must not exist yet.
        space: names the action's components.
        fps: frames a second, a whole number.
        action_offset: of the world (`DreamerDynamicsConfig.action_offset`).

    Raises:
        FileExistsError: when the folder exists already, or an unfinished recording beside it.
        ValueError: when lerobot is missing or `fps` is not a whole number.
    """

    def __init__(self, path: str | Path, space: ActionSpace, fps: float, action_offset: int):
        self.path = Path(path)
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        for folder in (self.path, self.partial_path):
            if folder.exists():
                raise FileExistsError(f"{folder} exists: record under another name, or move it away.")
        if fps != round(fps):
            raise ValueError(
                f"LeRobot datasets have a whole number of frames a second, the world has {fps}: record an MP4."
            )
        self._create = _import_create()
        self.space, self.fps, self.action_offset = space, round(fps), action_offset
        self._dataset = None
        self._first_row: dict | None = None  # of an episode that may not get a second one
        self._in_episode = False

    def add(self, before: np.ndarray, action: np.ndarray, after: np.ndarray) -> None:
        """Appends one row; frames are uint8 (H, W, 3) RGB, the action is float32 (A,)."""
        row = {IMAGE_KEY: before if self.action_offset == 1 else after, "action": action, "task": TASK}
        if not self._in_episode and self._first_row is None:
            self._first_row = row
            return
        if self._dataset is None:
            self._dataset = self._open(row[IMAGE_KEY].shape)
        if not self._in_episode:
            self._dataset.add_frame(self._first_row)
        self._dataset.add_frame(row)
        self._in_episode, self._first_row = True, None

    def cut(self) -> None:
        """Ends the episode."""
        if self._in_episode:
            self._dataset.save_episode()
        self._in_episode, self._first_row = False, None

    def close(self) -> None:
        """Finishes the dataset and gives the folder its name; without an episode there is no folder."""
        self.cut()
        if self._dataset is None:
            return
        self._dataset.finalize()
        self._dataset = None
        self.partial_path.rename(self.path)

    def _open(self, image_shape: tuple[int, ...]):
        features = {
            IMAGE_KEY: {"dtype": "video", "shape": image_shape, "names": ["height", "width", "channels"]},
            "action": {"dtype": "float32", "shape": (self.space.size,), "names": list(self.space.names)},
        }
        if self.space.units is not None:
            features["action"]["units"] = list(self.space.units)
        return self._create(
            f"dreamer_hf/{self.path.name}",
            fps=self.fps,
            features=features,
            root=self.partial_path,
            robot_type="dream",
            streaming_encoding=True,
        )


def _import_create():
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder reports on every episode otherwise
    try:
        import datasets
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        raise ValueError("recording a dataset needs lerobot: pip install 'dreamer_hf[lerobot]'.") from error
    datasets.disable_progress_bars()
    return LeRobotDataset.create

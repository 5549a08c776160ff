"""Recorders of a session: an MP4 video, or a LeRobotDataset to train on or to view with the tools of real data."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..action_space import ActionSpace
from ..media import VideoWriter
from ..real_time import leave_real_time
from ..state_space import StateSpace
from .session import SideBySide

IMAGE_KEY, CAMERAS_KEY, STATE_KEY = "observation.image", "observation.images", "observation.state"
TRUST_KEY = "trust"
TASK = "Play in a dreamed world."
MIN_VIDEO_SIDE = 32
"""Smallest side of frames that are stored as a video: LeRobot's AV1 encoder ends the process at 16 x 16 pixels."""


class VideoRecorder(VideoWriter):
    """Writes the frames of a session to an MP4 file.

    Args:
        path: the file to make; it must not exist yet.
        fps: frame rate of the video.
        side_by_side: what is shown to the left of the dream, or None.

    Raises:
        FileExistsError, ValueError: as in `VideoWriter`.
    """

    def __init__(self, path: str | Path, fps: float, side_by_side: SideBySide | None = None):
        super().__init__(path, fps)
        self._side_by_side = side_by_side

    def add(self, before, action, after: np.ndarray, states=(None, None), trusts=(None, None)) -> None:
        """Append one step: the frame that the action led to. `after` is uint8 (H, W, 3) RGB."""
        self.write(after if self._side_by_side is None else np.concatenate([self._side_by_side.frame, after], axis=1))

    def cut(self) -> None:
        """After a reset or a rewind, the video continues with the next frame."""


class DatasetRecorder:
    """Writes steps to a LeRobotDataset (v3.0) folder that appears under its name when the recorder is closed.

    As in recorded data, row t holds a frame and, with `action_offset` 1, the action given while it was shown; with 0,
    the action of the frame itself. A reset or a rewind ends the episode, so no episode jumps in time. An episode of a
    single row is left out: LeRobot 0.6 cannot store one.

    Args:
        path: the folder to make; it must not exist yet.
        space: names the action's components.
        fps: frame rate, a whole number.
        action_offset: of the world (`DreamerDynamicsConfig.action_offset`).
        state_space: the world's state, stored as `observation.state`; None (the default) for no state.
        camera_names: of a world with several cameras, which are side by side in its frames; each gets a separate
            column, `observation.images.NAME`. None (the default) for one camera, `observation.image`.
        has_trust: whether frames come with their trust, stored as `trust`. Default: no.

    Raises:
        FileExistsError: the folder, or an unfinished recording next to it, exists already.
        ValueError: lerobot is missing, or `fps` is not a whole number.
    """

    def __init__(
        self,
        path: str | Path,
        space: ActionSpace,
        fps: float,
        action_offset: int,
        state_space: StateSpace | None = None,
        camera_names: Sequence[str] | None = None,
        has_trust: bool = False,
    ):
        self.path = Path(path)
        self.partial_path = self.path.with_name(self.path.name + ".partial")
        for folder in (self.path, self.partial_path):
            if folder.exists():
                raise FileExistsError(f"{folder} exists: record under another name, or move it away.")
        if fps != round(fps):
            raise ValueError(
                f"LeRobot datasets have a whole number of frames per second, the world has {fps}: record an MP4."
            )
        self._create = _import_create()
        self.space, self.fps, self.action_offset, self.state_space = space, round(fps), action_offset, state_space
        self._image_keys = [IMAGE_KEY] if camera_names is None else [_image_key(name) for name in camera_names]
        self.has_trust = has_trust
        self._dataset = None
        self._first_row: dict | None = None  # of an episode that may stay without a second row
        self._in_episode = False

    def add(
        self,
        before: np.ndarray,
        action: np.ndarray,
        after: np.ndarray,
        states=(None, None),
        trusts=(None, None),
    ) -> None:
        """Append one row; frames are uint8 (H, W, 3) RGB, the action is float32 (A,), and so are the states before and
        after the step, of a world that has a state; trusts are numbers from 0 to 1."""
        shown = 0 if self.action_offset == 1 else 1
        views = list(map(np.ascontiguousarray, np.split((before, after)[shown], len(self._image_keys), axis=1)))
        row = dict(zip(self._image_keys, views)) | {"action": action, "task": TASK}
        if self.state_space is not None and len(self.state_space):
            row[STATE_KEY] = states[shown]
        if self.has_trust:
            row[TRUST_KEY] = np.array([trusts[shown]], np.float32)
        if not self._in_episode and self._first_row is None:
            self._first_row = row
            return
        if self._dataset is None:
            self._dataset = self._create_dataset(views[0].shape)
        if not self._in_episode:
            self._dataset.add_frame(self._first_row)
        self._dataset.add_frame(row)
        leave_real_time()
        self._in_episode, self._first_row = True, None

    def cut(self) -> None:
        """End the episode."""
        if self._in_episode:
            self._dataset.save_episode()
            leave_real_time()
        self._in_episode, self._first_row = False, None

    def close(self) -> None:
        """Finish the dataset and give the folder its name; without an episode there is no folder."""
        self.cut()
        if self._dataset is None:
            return
        self._dataset.finalize()
        self._dataset = None
        self.partial_path.rename(self.path)

    def _create_dataset(self, image_shape: tuple[int, ...]):
        kind = "video" if min(image_shape[:2]) >= MIN_VIDEO_SIDE else "image"
        image = {"dtype": kind, "shape": image_shape, "names": ["height", "width", "channels"]}
        features = {key: dict(image) for key in self._image_keys}
        features["action"] = {"dtype": "float32", "shape": (self.space.size,), "names": list(self.space.names)}
        if self.space.units is not None:
            features["action"]["units"] = list(self.space.units)
        state = self.state_space
        if state is not None and len(state):
            features[STATE_KEY] = {"dtype": "float32", "shape": (len(state),), "names": list(state.names)}
            if state.units is not None:
                features[STATE_KEY]["units"] = list(state.units)
        if self.has_trust:
            features[TRUST_KEY] = {"dtype": "float32", "shape": (1,), "names": [TRUST_KEY]}
        return self._create(
            f"dreamer_hf/{self.path.name}",
            fps=self.fps,
            features=features,
            root=self.partial_path,
            robot_type="dream",
            use_videos=kind == "video",
            streaming_encoding=kind == "video",
            encoder_queue_maxsize=0,  # unlimited: LeRobot drops the frames that a full queue refuses
        )


def _image_key(camera: str) -> str:
    """Return the column of a camera, whose name may be that of a column already."""
    return camera if camera.startswith("observation.") else f"{CAMERAS_KEY}.{camera.replace('/', '_')}"


def _import_create():
    os.environ.setdefault("SVT_LOG", "1")  # otherwise the AV1 encoder reports on every episode
    try:
        import datasets
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError as error:
        raise ValueError("recording a dataset needs lerobot: pip install 'dreamer_hf[lerobot]'.") from error
    datasets.disable_progress_bars()
    return LeRobotDataset.create

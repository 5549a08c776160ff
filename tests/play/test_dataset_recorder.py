"""A dream recorded as a LeRobotDataset, read again with lerobot itself."""

import time

import numpy as np
import pytest

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.recorders import DatasetRecorder

SIZE = 64  # the AV1 encoder takes nothing smaller


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def space(world) -> ActionSpace:
    return ActionSpace.from_config(world.config.dynamics_config)


def gray(step: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 10 * step, np.uint8)


@pytest.mark.parametrize("offset", [1, 0])
def test_rows_are_paired_as_in_recorded_data_and_cuts_end_episodes(tmp_path, space, offset):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    recorder = DatasetRecorder(tmp_path / "dreams", space, fps=20, action_offset=offset)
    for episode_length in (4, 3):
        for step in range(episode_length):
            recorder.add(gray(step), np.full(2, step, np.float32), gray(step + 1))
        recorder.cut()
        recorder.cut()  # a reset right after a rewind ends no episode twice
        recorder.add(gray(0), np.full(2, 9, np.float32), gray(1))
        recorder.cut()  # a single row makes no episode
    recorder.add(gray(0), np.full(2, 8, np.float32), gray(1))
    recorder.add(gray(1), np.full(2, 9, np.float32), gray(2))
    recorder.close()

    assert [entry.name for entry in tmp_path.iterdir()] == ["dreams"]
    dataset = LeRobotDataset("dreamer_hf/dreams", root=tmp_path / "dreams", video_backend="pyav")
    assert dataset.num_episodes == 3 and dataset.fps == 20
    assert dataset.features["action"]["names"] == ["target_x", "target_y"]
    rows = [dataset[i] for i in range(len(dataset))]
    assert [int(row["action"][0]) for row in rows] == [0, 1, 2, 3, 0, 1, 2, 8, 9]
    shown = [0, 1, 2, 3, 0, 1, 2, 0, 1] if offset == 1 else [1, 2, 3, 4, 1, 2, 3, 1, 2]
    brightness = [25.5 * float(row["observation.image"].mean()) for row in rows]
    np.testing.assert_allclose(brightness, shown, atol=0.3)


def test_no_frame_is_lost_while_the_encoder_is_behind(tmp_path, space, monkeypatch):
    """LeRobot drops frames where its queue of 30 is full for a tenth of a second."""
    from lerobot.datasets import video_utils
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    encode = video_utils._CameraEncoderThread.run
    monkeypatch.setattr(video_utils._CameraEncoderThread, "run", lambda self: time.sleep(0.5) or encode(self))
    recorder = DatasetRecorder(tmp_path / "dreams", space, fps=20, action_offset=1)
    for number in range(40):
        recorder.add(gray(number % 20), np.zeros(2, np.float32), gray(number % 20 + 1))
    recorder.close()
    dataset = LeRobotDataset("dreamer_hf/dreams", root=tmp_path / "dreams", video_backend="pyav")
    shown = [25.5 * float(dataset[number]["observation.image"].mean()) for number in range(40)]
    np.testing.assert_allclose(shown, np.arange(40) % 20, atol=0.3)


def test_a_single_row_leaves_no_folder(tmp_path, space):
    recorder = DatasetRecorder(tmp_path / "dreams", space, fps=20, action_offset=1)
    recorder.add(gray(0), np.zeros(2, np.float32), gray(1))
    recorder.close()
    assert not list(tmp_path.iterdir())


def test_existing_folders_and_broken_rates_are_refused(tmp_path, space):
    (tmp_path / "dreams").mkdir()
    with pytest.raises(FileExistsError, match="move it away"):
        DatasetRecorder(tmp_path / "dreams", space, fps=20, action_offset=1)
    (tmp_path / "killed.partial").mkdir()
    with pytest.raises(FileExistsError, match="killed"):
        DatasetRecorder(tmp_path / "killed", space, fps=20, action_offset=1)
    with pytest.raises(ValueError, match=r"7\.5"):
        DatasetRecorder(tmp_path / "new", space, fps=7.5, action_offset=1)

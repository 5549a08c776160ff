"""Recordings decoded again and compared with what was recorded."""

import av
import numpy as np
import pytest

from dreamer_hf.play.recorders import VideoRecorder

ACTION = np.zeros(2, dtype=np.float32)


def moving_square(time: int, height=16, width=24) -> np.ndarray:
    frame = np.full((height, width, 3), (40, 90, 160), np.uint8)
    frame[4:8, time : time + 4] = (230, 60, 30)
    return frame


def read_video(path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]), float(stream.average_rate)


def test_a_recording_shows_the_dream(tmp_path):
    recorder = VideoRecorder(tmp_path / "new" / "dream.mp4", fps=10)
    for time in range(12):
        recorder.add(moving_square(time), ACTION, moving_square(time + 1))
    assert not recorder.path.exists()
    recorder.close()
    frames, fps = read_video(recorder.path)
    assert fps == 10 and frames.shape == (12, 256, 384, 3)
    for time, frame in enumerate(frames):
        expected = moving_square(time + 1).repeat(16, 0).repeat(16, 1)
        assert np.abs(frame.astype(int) - expected).mean() < 3
    assert [entry.name for entry in recorder.path.parent.iterdir()] == ["dream.mp4"]


def test_odd_sizes_and_fractional_rates(tmp_path):
    recorder = VideoRecorder(tmp_path / "dream.mp4", fps=7.5)
    recorder.add(None, ACTION, np.zeros((301, 303, 3), np.uint8))
    recorder.close()
    frames, fps = read_video(recorder.path)
    assert fps == 7.5 and frames.shape == (1, 602, 606, 3)


def test_what_a_killed_process_leaves_plays(tmp_path):
    recorder = VideoRecorder(tmp_path / "dream.mp4", fps=5)
    for time in range(18):
        recorder.add(None, ACTION, moving_square(time))
    frames, _ = read_video(recorder.partial_path)  # not closed yet
    assert len(frames) >= 10
    recorder.close()


def test_nothing_recorded_leaves_no_file(tmp_path):
    VideoRecorder(tmp_path / "dream.mp4", fps=10).close()
    assert not list(tmp_path.iterdir())


def test_other_names_and_existing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4"):
        VideoRecorder(tmp_path / "dream.gif", fps=10)
    (tmp_path / "dream.mp4").write_text("precious")
    with pytest.raises(FileExistsError, match="move it away"):
        VideoRecorder(tmp_path / "dream.mp4", fps=10)
    assert (tmp_path / "dream.mp4").read_text() == "precious"

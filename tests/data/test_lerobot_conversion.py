import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dreamer_hf.data import LeRobotWindows, ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform
from dreamer_hf.data.shard_writer import ShardWriter
from dreamer_hf.data.sources.lerobot_info import find_units
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource
from tiny import TINY_LENGTHS, TINY_REPO_ID, tiny_episodes, tiny_frame, write_tiny_lerobot

SCRIPT = Path(__file__).parents[2] / "conversion" / "lerobot_to_hdf5.py"


def whole(folder):
    """Every episode of a folder: source number, frames (T, 3, H, W), actions, mask."""
    dataset = ShardDataset(folder, window_size=None, split="all", action_offset=0)
    numbers = dataset.source_episodes.tolist()
    return {number: dataset.episode(i) for i, number in enumerate(numbers)}


def assert_same_data(first, second):
    first, second = whole(first), whole(second)
    assert first.keys() == second.keys()
    for number, item in first.items():
        assert all(torch.equal(value, second[number][key]) for key, value in item.items())


@pytest.fixture(scope="module")
def image_lerobot(tmp_path_factory):
    """The tiny episodes from two cameras, kept as PNG images in parquet."""
    root = tmp_path_factory.mktemp("images") / "dataset"
    write_tiny_lerobot(root, use_videos=False, cameras=("front", "back"))
    return root


def test_frames_and_actions_equal_those_lerobot_reads(tiny_lerobot, tiny_shards):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    reference = LeRobotDataset(TINY_REPO_ID, root=tiny_lerobot, video_backend="pyav")
    ours = whole(tiny_shards)
    frames = torch.cat([ours[n]["pixel_values_videos"] for n in sorted(ours)])
    actions = torch.cat([ours[n]["actions"] for n in sorted(ours)])
    assert len(frames) == len(reference) == sum(TINY_LENGTHS)
    for index in range(0, len(reference), 7):
        item = reference[index]
        assert torch.equal((item["observation.image"] * 255).round().to(torch.uint8), frames[index])
        assert torch.equal(item["action"], actions[index])


@pytest.mark.parametrize("codec", ["libsvtav1", "h264"])
@pytest.mark.parametrize("step", [2, 5])
def test_thinning_out_keeps_exactly_every_nth_frame(tmp_path, tiny_lerobot, tiny_shards, step, codec):
    """Also where skipped frames are never decoded: key frames at every 2nd (AV1) or 12th frame (H.264, B-frames)."""
    root = tiny_lerobot if codec == "libsvtav1" else recode_as_h264(tiny_lerobot, tmp_path / "h264")
    every = whole(convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "all", ConversionOptions()))
    thinned = convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "out", ConversionOptions(target_fps=10 / step))
    for number, item in whole(thinned).items():
        assert torch.equal(item["pixel_values_videos"], every[number]["pixel_values_videos"][::step])
        assert torch.equal(item["actions"], every[number]["actions"][::step])
    assert ShardDataset(thinned, 2).fps == 10 / step


def recode_as_h264(root, destination):
    import av

    shutil.copytree(root, destination)
    (path,) = destination.glob("videos/*/*/*.mp4")
    with av.open(str(next(root.glob("videos/*/*/*.mp4")))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10, options={"g": "12", "bf": "3", "crf": "18"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame.reformat(format="yuv420p")))
        target.mux(stream.encode())
    return destination


@pytest.mark.slow
def test_rotated_video_files_are_followed(tmp_path):
    """lerobot starts a new video file when one is full, and each camera does so on its own."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path / "dataset"
    features = {key: {"dtype": "video", "shape": (32, 32, 3), "names": None} for key in ("calm", "busy")}
    features["action"] = {"dtype": "float32", "shape": (1,), "names": None}
    dataset = LeRobotDataset.create(TINY_REPO_ID, 10, features, root=root, video_files_size_in_mb=0.012)
    rng = np.random.default_rng(0)
    for episode in range(5):
        for frame in range(12):
            calm = np.full((32, 32, 3), 40 * episode + 3 * frame, np.uint8)
            busy = rng.integers(0, 256, (32, 32, 3), np.uint8)
            dataset.add_frame({"calm": calm, "busy": busy, "action": np.float32([frame]), "task": "t"})
        dataset.save_episode()
    dataset.finalize()
    counts = [len(list(root.glob(f"videos/{key}/*/*.mp4"))) for key in ("calm", "busy")]
    assert counts[0] < counts[1], "the recording must rotate its cameras' files at different episodes"
    source = LeRobotSource(root, TINY_REPO_ID, image_key="calm,busy", tile_cameras=True)
    out = whole(convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=3)))
    reference = LeRobotDataset(TINY_REPO_ID, root=root, video_backend="pyav")
    for index in range(0, 60, 5):
        both = torch.cat([reference[index][key] for key in ("calm", "busy")], dim=2)
        frame = out[index // 12]["pixel_values_videos"][index % 12]
        assert torch.equal((both * 255).round().to(torch.uint8), frame)


def test_images_in_parquet_are_exact_and_cameras_are_side_by_side(image_lerobot, tmp_path):
    source = LeRobotSource(image_lerobot, TINY_REPO_ID, image_key="front,back", episodes="1:4", tile_cameras=True)
    items = whole(convert(source, tmp_path / "out", ConversionOptions(target_fps=5)))
    assert sorted(items) == [1, 2, 3]
    episodes = list(tiny_episodes())
    for number, item in items.items():
        positions, actions = episodes[number]
        front = np.stack([tiny_frame(position) for position in positions[::2]])
        both = np.concatenate([front, front[:, :, ::-1]], axis=2)
        np.testing.assert_array_equal(item["pixel_values_videos"].permute(0, 2, 3, 1).numpy(), both)
        np.testing.assert_array_equal(item["actions"].numpy(), actions[::2])


@pytest.mark.slow
def test_several_workers_write_the_same_shards(tiny_lerobot, tiny_shards, tmp_path):
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=2), JobOptions(num_workers=2))
    assert_same_data(tiny_shards, tmp_path / "out")


def test_relative_actions_are_differences_of_kept_frames(tiny_lerobot, tmp_path):
    options = ConversionOptions(target_fps=5, relative_actions=True, absolute_action_dims=(1,))
    items = whole(convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path / "out", options))
    for number, (_, actions) in enumerate(tiny_episodes()):
        kept = actions[::2]
        np.testing.assert_array_equal(items[number]["actions"][1:, 0].numpy(), kept[1:, 0] - kept[:-1, 0])
        assert items[number]["actions"][0, 0] == 0
        np.testing.assert_array_equal(items[number]["actions"][:, 1].numpy(), kept[:, 1])


def test_short_episodes_are_dropped_after_thinning_out_and_nothing_else(tiny_lerobot, tmp_path):
    options = ConversionOptions(target_fps=5, min_episode_length=15)
    items = whole(convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path / "out", options))
    assert list(items) == [number for number, length in enumerate(TINY_LENGTHS) if (length + 1) // 2 >= 15]


@pytest.mark.slow
def test_shards_are_laid_out_for_windows_and_plain_readers(tiny_lerobot, tiny_shards, tmp_path):
    with h5py.File(tiny_shards / "shard_0001.h5") as file:
        assert file["images"].chunks == (1, 8, 32, 32, 3) and file["images"].shape == (2, 33, 32, 32, 3)
        assert file["episode_lengths"][:].tolist() == [27, 33] and file["episode_lengths"].dtype == np.int32
        assert file["actions"].shape == (2, 33, 2) and file["actions"].dtype == np.float32
        assert file.attrs["num_episodes"] == 2 and file.attrs["max_length"] == 33
        assert file["images"].id.get_num_chunks() == 4 + 5  # nothing is stored for the padding
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID, episodes="0")
    convert(source, tmp_path / "out", ConversionOptions(compression="gzip", target_fps=2))
    code = "import h5py, sys; f = h5py.File(sys.argv[1]); print(f['images'].chunks, f['images'][0, 2].sum() > 0)"
    plain = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "out" / "shard_0000.h5"], capture_output=True, text=True
    )
    assert plain.stdout.split(") ") == ["(1, 5, 32, 32, 3", "True\n"], plain.stderr


def convert_slowly(source, out, options):
    new_frame = ShardWriter.new_frame

    def add_slowly(self, *args, **options):
        time.sleep(0.02)
        return new_frame(self, *args, **options)

    ShardWriter.new_frame = add_slowly
    convert(source, out, options)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["shard_0000.h5", ".shard_0001.h5.*.tmp", ".shard_0002.h5.*.tmp"])
def test_a_killed_conversion_continues_without_a_lost_or_doubled_episode(tiny_lerobot, tiny_shards, tmp_path, moment):
    out, options = tmp_path / "out", ConversionOptions(episodes_per_shard=2)
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    process = multiprocessing.get_context("fork").Process(target=convert_slowly, args=(source, out, options))
    process.start()
    deadline = time.monotonic() + 60
    while not list(out.glob(moment)):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (out / "metadata.json").exists() and not (out / "shard_0002.h5").exists()

    with pytest.raises(FileExistsError, match="continue it with --resume"):
        convert(source, out, options)
    with pytest.raises(ValueError, match="other values of min_episode_length"):
        convert(source, out, replace(options, min_episode_length=4), JobOptions(resume=True))
    convert(source, out, options, JobOptions(resume=True))
    assert_same_data(tiny_shards, out)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    with pytest.raises(FileExistsError, match="nothing left to do"):
        convert(source, out, options, JobOptions(resume=True))


def command_line(root, out, *flags):
    flags = ("--repo_id", TINY_REPO_ID, "--local_dir", root, "--output_dir", out, *flags)
    return [sys.executable, str(SCRIPT), *map(str, flags)]


def processes_in(session):
    """Numbers of the living processes of a session."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # It has ended meanwhile.
            continue
        if int(owner) == session and state != "Z":
            found.add(int(path.parent.name))
    return found


@pytest.mark.slow
def test_workers_end_with_a_killed_converter_and_resume_is_whole(tiny_lerobot, tiny_shards, tmp_path):
    command = command_line(tiny_lerobot, tmp_path / "out", "--episodes_per_shard", 2, "--num_workers", 2)
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.shard_*.tmp")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    workers = processes_in(process.pid) - {process.pid}
    assert len(workers) >= 2
    process.kill()
    process.wait()
    while processes_in(process.pid):
        assert time.monotonic() < deadline, "workers outlive their converter"
        time.sleep(0.02)
    assert not (tmp_path / "out" / "metadata.json").exists()
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0 and "wrote 6 of 6 episodes, 190 frames" in resumed.stderr, resumed.stderr
    assert_same_data(tiny_shards, tmp_path / "out")
    names = {"metadata.json", "index.npz", *(f"shard_000{number}.h5" for number in range(3))}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.slow
def test_resuming_next_to_a_live_conversion_does_no_harm(tiny_lerobot, tiny_shards, tmp_path):
    out, options = tmp_path / "out", ConversionOptions(episodes_per_shard=2)
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    process = multiprocessing.get_context("fork").Process(target=convert_slowly, args=(source, out, options))
    process.start()
    deadline = time.monotonic() + 60
    while not list(out.glob(".shard_0000.h5.*.tmp")):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.001)
    for job in (JobOptions(), JobOptions(resume=True)):
        with pytest.raises(BlockingIOError, match=f"another running process is writing to {out}"):
            convert(source, out, options, job)
    process.join()
    assert process.exitcode == 0
    assert_same_data(tiny_shards, out)


@pytest.mark.slow
def test_what_workers_have_to_say_is_seen(tiny_lerobot, tmp_path):
    flags = ("--episodes_per_shard", 3, "--num_workers", 2, "--width", 32, "--height", 16)
    done = subprocess.run(command_line(tiny_lerobot, tmp_path / "out", *flags), capture_output=True, text=True)
    assert done.returncode == 0 and "stretching frames of 32x32 to 32x16" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_wrong_first_attempt_does_not_block_the_folder(tiny_lerobot, tmp_path):
    """Nothing was stored yet, so there is nothing to lose."""
    root = damaged_copy(tiny_lerobot, tmp_path / "copy", "videos/*/*/*.mp4", lambda content: b"")
    with pytest.raises(ValueError, match="mp4 cannot be decoded"):
        convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "out", ConversionOptions())
    options = ConversionOptions(transform=FrameTransform(width=16, height=16))
    convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path / "out", options)
    assert len(whole(tmp_path / "out")) == 6


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_resumable(tiny_lerobot, tmp_path):
    """A limit on the size of files stands in for the full disk: writing fails in the same way."""
    out = tmp_path / "out"
    size = ("--width", 256, "--height", 256)
    arguments = ("--local_dir", tiny_lerobot, "--output_dir", out, *size, "--num_workers", 1)
    limited = [
        "bash", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$@"', "bash",
        sys.executable, str(SCRIPT), "--repo_id", TINY_REPO_ID, *map(str, arguments),
    ]  # fmt: skip
    failed = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 2 and "no space left while writing" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stderr and [p.name for p in out.iterdir()] == ["conversion.json"]
    options = ConversionOptions(transform=FrameTransform(256, 256))
    convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), out, options, JobOptions(resume=True))
    assert len(whole(out)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image_key", "wrist"), "no camera 'wrist'; --image_key can be: observation.image"),
        (
            ("--action_key", "act"),
            "no feature 'act' to take actions from; --action_key can be: observation.state, action",
        ),
        (("--target_fps", "4"), "does not divide the source's 10: use 10, 5, 3.333, 2.5, 2"),
        (("--episodes", "2:9"), "lies outside the dataset, which holds episodes 0 to 5"),
        (("--min_episode_length", "50"), "no episode has 50 frames (the longest has 40)"),
        (("--pad_to_square", "--width", "8", "--height", "9"), "--pad_to_square makes squares"),
        (("--absolute_action_dims", "0"), "has no effect without --relative_actions"),
        (("--local_dir", "/nowhere"), "/nowhere/meta/info.json is missing"),
    ],
)
def test_bad_flags_are_one_sentence(tiny_lerobot, tmp_path, arguments, message, monkeypatch, capsys):
    import runpy

    flags = ["--repo_id", TINY_REPO_ID, "--local_dir", str(tiny_lerobot), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *flags, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and "Traceback" not in error
    assert not list(tmp_path.glob("out/shard*"))


def test_a_folder_that_is_not_empty_is_left_alone(tiny_lerobot, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for job in (JobOptions(), JobOptions(resume=True)):
        with pytest.raises(FileExistsError, match="is not empty"):
            convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path, ConversionOptions(), job)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def damaged_copy(root, destination, relative, change):
    shutil.copytree(root, destination)
    (path,) = destination.glob(relative)
    path.write_bytes(change(path.read_bytes()))
    return destination


@pytest.mark.parametrize(
    ("relative", "change", "message"),
    [
        ("videos/*/*/*.mp4", lambda b: b[: len(b) * 2 // 3], "mp4 (has no intact frame|cannot be decoded)"),
        ("videos/*/*/*.mp4", lambda b: b"", "mp4 cannot be decoded"),
        ("data/*/*.parquet", lambda b: b[:-50], "parquet cannot be read"),
        ("meta/info.json", lambda b: b[:50], "info.json is damaged"),
        ("meta/info.json", lambda b: b.replace(b'"video_path"', b'"video_pith"'), "info.json is damaged"),
        ("meta/info.json", lambda b: b.replace(b"{file_index:03d}.parquet", b"{of}"), "info.json is damaged"),
        ("meta/info.json", lambda b: b.replace(b"v3.0", b"v2.1"), "convert_dataset_v21_to_v30 --repo-id=tests/tiny"),
        ("meta/info.json", lambda b: b.replace(b'"total_episodes": 6', b'"total_episodes": 9'), "promises 9 episodes"),
    ],
)
def test_damaged_datasets_are_refused(tiny_lerobot, tmp_path, relative, change, message):
    root = damaged_copy(tiny_lerobot, tmp_path / "copy", relative, change)
    with pytest.raises(ValueError, match=message):
        convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "out", ConversionOptions())
    assert not list(tmp_path.glob("out/shard*")) and not list(tmp_path.glob("out/.*"))


def with_a_bad_action(root, destination):
    """A copy whose episode 1 has an action at frame 11 that is not a number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(root, destination)
    (path,) = destination.glob("data/*/*.parquet")
    table = pq.read_table(path)
    values = table["action"].to_pylist()
    values[TINY_LENGTHS[0] + 11] = [0.0, float("nan")]
    column = table.schema.get_field_index("action")
    field = table.schema.field("action")
    pq.write_table(table.set_column(column, field, pa.array(values, field.type)), path)
    return destination


def test_actions_that_are_not_numbers_are_named(tiny_lerobot, tmp_path):
    root = with_a_bad_action(tiny_lerobot, tmp_path / "copy")
    with pytest.raises(ValueError, match="episode 1 has an action at frame 11 that is not a number"):
        convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "out", ConversionOptions())


@pytest.mark.parametrize("column", [None, "words"])
def test_missing_or_odd_actions_are_named(tiny_lerobot, tmp_path, column):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = shutil.copytree(tiny_lerobot, tmp_path / "copy")
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path).drop_columns(["action"])
    pq.write_table(
        table if column is None else table.append_column("action", pa.array([[column] * 2] * len(table))), path
    )
    message = "there is no column action" if column is None else "actions that are not 2 numbers wide"
    with pytest.raises(ValueError, match=rf"parquet .*{message}"):
        convert(LeRobotSource(root, TINY_REPO_ID), tmp_path / "out", ConversionOptions())


@pytest.mark.slow
def test_what_other_workers_finished_before_a_failure_stays(tiny_lerobot, tiny_shards, tmp_path):
    root, out = with_a_bad_action(tiny_lerobot, tmp_path / "copy"), tmp_path / "out"
    options = ConversionOptions(episodes_per_shard=2)
    with pytest.raises(ValueError, match="episode 1 has an action at frame 11"):
        convert(LeRobotSource(root, TINY_REPO_ID), out, options, JobOptions(num_workers=2))
    left = {path.name for path in out.iterdir()}
    assert left <= {"conversion.json", "shard_0001.h5", "shard_0002.h5"} and "shard_0001.h5" in left
    convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), out, options, JobOptions(num_workers=2, resume=True))
    assert_same_data(tiny_shards, out)


def test_a_dataset_that_is_nowhere_is_one_sentence():
    with pytest.raises(
        FileNotFoundError, match=r"nobody/nothing is neither a folder here nor a dataset on the Hub \("
    ):
        LeRobotSelection("nobody/nothing").open()


def test_units_that_the_recording_names_are_kept(tiny_lerobot, tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from dreamer_hf.data.inspect_dataset import describe

    features = {"action": {"dtype": "float32", "shape": (2,), "names": ["x", "grip"], "units": ["mm", "%"]}}
    features["image"] = {"dtype": "image", "shape": (8, 8, 3), "names": None}
    dataset = LeRobotDataset.create(TINY_REPO_ID, 10, features, root=tmp_path / "dataset", use_videos=False)
    for step in range(3):
        dataset.add_frame({"action": np.float32([step, 0]), "image": np.zeros((8, 8, 3), np.uint8), "task": "t"})
    dataset.save_episode()
    dataset.finalize()
    out = convert(LeRobotSource(tmp_path / "dataset", TINY_REPO_ID), tmp_path / "out", ConversionOptions())
    assert ShardDataset(out, 2, split="all").action_units == ["mm", "%"]
    assert LeRobotWindows(tmp_path / "dataset", 2, split="all").action_units == ["mm", "%"]
    assert "x [mm]" in describe(out, 2) and "grip [%]" in describe(out, 2)
    assert find_units({"info": {"unit": "rad"}}, 2) == ["rad", "rad"] and find_units({"units": ["m"]}, 2) is None
    assert LeRobotSource(tiny_lerobot, TINY_REPO_ID).action_units is None


def test_metadata_says_where_the_data_came_from(tiny_shards):
    metadata = json.loads((tiny_shards / "metadata.json").read_text())
    assert metadata["num_shards"] == 3 and metadata["total_episodes"] == 6 and metadata["color_order"] == "rgb"
    assert (
        metadata["image_shape"] == [32, 32, 3] and metadata["action_shape"] == [2] and metadata["action_offset"] == 0
    )
    assert metadata["source"]["repo_id"] == TINY_REPO_ID and metadata["conversion"]["episodes"] == "0:6"
    assert metadata["frames_per_shard"] == [64, 60, 66]

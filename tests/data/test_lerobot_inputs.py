"""LeRobot datasets as people have them: older formats, other shapes, types, names and orders, missing parts, hostile paths."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamer_hf.data import LeRobotWindows, ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.inspect_dataset import describe
from dreamer_hf.data.lerobot_windows import opener_for_world
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource, flatten_names, local_root
from hub_stand_in import HubStandIn
from tiny import TINY_REPO_ID

CONVERTER = Path(__file__).parents[2] / "conversion" / "lerobot_to_hdf5.py"
LENGTHS = (8, 5, 6)
FRAMES = np.concatenate([np.arange(length) for length in LENGTHS])
OWNERS = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
CAMERA = "observation.images.top"


def frame_of(episode, frame, size=(16, 24)):
    return np.full((*size, 3), (40 * episode, 20 * frame, 200), np.uint8)


def encoded(episode, frame):
    return cv2.imencode(".png", frame_of(episode, frame)[..., ::-1])[1].tobytes()


def write_lerobot(root, columns=None, features=None, info=None, video=False, camera_info=None):
    """A LeRobotDataset v3.0 written by hand, whose frames tell their episode and number.

    Args:
        columns: of the data table, which replace or join the usual ones; None leaves one out.
        features: further ones, or others, of the info.
        info: other keys of the info.
        video: one file of video instead of images in the table.
        camera_info: further keys of the camera's feature.
    """
    kind = "video" if video else "image"
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        CAMERA: {"dtype": kind, "shape": [16, 24, 3], "names": None} | (camera_info or {}),
        "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    } | (features or {})
    actions = np.stack([FRAMES, OWNERS], axis=1).astype(np.float32)
    images = [{"bytes": encoded(*which), "path": None} for which in zip(OWNERS, FRAMES, strict=True)]
    table = {
        "action": pa.array(list(actions), pa.list_(pa.float32())),
        CAMERA: None if video else pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "frame_index": pa.array(FRAMES),
        "episode_index": pa.array(OWNERS),
    } | (columns or {})
    numbers, starts = np.arange(len(LENGTHS)), np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    episodes = {
        "episode_index": numbers,
        "length": LENGTHS,
        "data/chunk_index": 0 * numbers,
        "data/file_index": 0 * numbers,
    }
    if video:
        episodes |= {f"videos/{CAMERA}/chunk_index": 0 * numbers, f"videos/{CAMERA}/file_index": numbers}
        episodes |= {f"videos/{CAMERA}/from_timestamp": 0.0 * starts}
    paths = {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    paths |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
    described = {"codebase_version": "v3.0", "fps": 10, "total_episodes": len(LENGTHS), "features": features} | paths
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(described | (info or {})))
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    present = {name: column for name, column in table.items() if column is not None}
    pq.write_table(pa.table(present), root / "data/chunk-000/file-000.parquet")
    for episode in numbers if video else ():
        path = root / f"videos/{CAMERA}/chunk-000/file-{episode:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "0"})
            stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv444p"
            for frame in range(LENGTHS[episode]):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_of(episode, frame), format="rgb24")))
            container.mux(stream.encode(None))
    return root


def converted(root, out, **options):
    source = {key: options.pop(key) for key in ("action_key", "episodes") if key in options}
    convert(LeRobotSource(root, "me/set", **source), out, ConversionOptions(**options))
    return ShardDataset(out, None, split="all", action_offset=0)


def actions_of(data):
    return [data.episode(position)["actions"].numpy() for position in range(data.num_episodes)]


def numbers_of(data, position):
    """Episode and frame numbers that the frames of an episode show."""
    colors = data.episode(position)["pixel_values_videos"][:, :, 5, 5].numpy()
    return {round(red / 40) for red in colors[:, 0]}, (colors[:, 1] / 20).round().astype(int).tolist()


V2_PATHS = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}


@pytest.mark.parametrize("version", ["v1.6", "v2.0", "v2.1"])
def test_older_formats_are_recognized_before_their_file_names_and_told_how_to_migrate(tmp_path, version):
    root = write_lerobot(tmp_path / "old", info={"codebase_version": version, **V2_PATHS})
    with pytest.raises(ValueError, match=f"me/set is a LeRobot dataset of format {version}: ") as caught:
        LeRobotSource(root, "me/set")
    advice = str(caught.value)
    if version == "v2.1":
        command = f"convert_dataset_v21_to_v30 --repo-id=me/set --root={root} --push-to-hub=false`"
        assert command in advice and f"--local_dir {root}" in advice
    else:
        assert "bring it to v2.1 with an older one first (0.3.3 has the step from v2.0)" in advice


def test_a_dataset_of_an_older_format_on_the_hub_is_migrated_into_a_new_folder(tmp_path):
    root = write_lerobot(tmp_path / "old", info={"codebase_version": "v2.1", **V2_PATHS})
    with HubStandIn("me/set", "secret") as hub:
        hub.files = files_of(root)
        failed = run_converter(hub, tmp_path, "me/set", tmp_path / "out")
    assert "--repo-id=me/set --root=set-v3 --push-to-hub=false`, then give --local_dir set-v3." in failed.stderr


def files_of(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def run_converter(hub, home, repo_id, out, *flags, offline="0", **variables):
    environment = os.environ | hub.environment(home) | {"HF_LEROBOT_HOME": str(home / "lerobot")}
    environment |= {"HF_HUB_OFFLINE": offline, "HF_HUB_ETAG_TIMEOUT": "3", **variables}
    command = [sys.executable, str(CONVERTER), "--repo_id", repo_id, "--output_dir", str(out), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("tags", [["v3.0"], []])
def test_what_was_downloaded_once_is_read_offline_and_while_the_hub_is_down(tmp_path, tags):
    root = write_lerobot(tmp_path / "set", video=True)
    with HubStandIn("me/set", "secret") as hub:
        hub.files, hub.tags = files_of(root), tags
        online = run_converter(hub, tmp_path, "me/set", tmp_path / "online")
        assert online.returncode == 0, online.stderr
        offline = run_converter(hub, tmp_path, "me/set", tmp_path / "offline", offline="1")
        assert offline.returncode == 0, offline.stderr
    down = run_converter(hub, tmp_path, "me/set", tmp_path / "down")
    assert down.returncode == 0, down.stderr
    # Caches of older versions of huggingface_hub, and copied ones, hold no list of the files of a commit.
    for trees in (tmp_path / "hub").rglob("trees"):
        shutil.rmtree(trees)
    older = run_converter(hub, tmp_path, "me/set", tmp_path / "older", offline="1")
    assert older.returncode == 0, older.stderr
    shards = [(tmp_path / name / "shard_0000.h5").read_bytes() for name in ("online", "offline", "down", "older")]
    assert len(set(shards)) == 1


def test_what_lerobot_downloaded_is_not_downloaded_again(tmp_path):
    root = write_lerobot(tmp_path / "set", video=True)
    with HubStandIn("me/set", "secret") as hub:
        hub.files, hub.tags = files_of(root), ["v3.0"]
        download = "from huggingface_hub import snapshot_download as s; import sys; s(sys.argv[1], repo_type='dataset', revision='v3.0', cache_dir=sys.argv[2])"  # fmt: skip
        environment = os.environ | hub.environment(tmp_path)
        command = [sys.executable, "-c", download, "me/set", tmp_path / "lerobot" / "hub"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        hub.requests.clear()
        done = run_converter(hub, tmp_path, "me/set", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert not any("/resolve/" in line for line in hub.requests)


def test_a_folder_is_found_by_its_name_and_a_mistyped_one_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    root = write_lerobot(tmp_path / "recordings" / "set")
    monkeypatch.chdir(tmp_path)
    for name in (str(root), "recordings/set", "./recordings/set"):
        assert local_root(name, None) is not None
        assert LeRobotSelection(name).open().root.resolve() == root
    monkeypatch.setattr("dreamer_hf.data.sources.lerobot_source.download_dataset", None)
    for name in ("./recordings/sett", f"{tmp_path}/sett", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="is not the folder of a LeRobotDataset"):
            LeRobotSelection(name).open()


INTEGERS = [20_000_001 + int(k) for k in FRAMES]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.uint32(), pa.uint64()])
def test_differences_of_large_numbers_are_taken_before_they_are_rounded(tmp_path, kind, caplog):
    values = INTEGERS if kind != pa.float64() else [500_000 + 0.001 * k for k in FRAMES]
    feature = {"action": {"dtype": str(kind), "shape": [1], "names": ["ticks"]}}
    root = write_lerobot(tmp_path / "set", {"action": pa.array(values, kind)}, feature)
    step = 1 if kind != pa.float64() else 0.001
    for actions in actions_of(converted(root, tmp_path / "out", relative_actions=True)):
        np.testing.assert_allclose(actions[:, 0], [0, *[step] * (len(actions) - 1)], rtol=1e-6)
    windows = LeRobotWindows(
        root, None, split="all", options=ConversionOptions(relative_actions=True), action_offset=0
    )
    np.testing.assert_allclose(windows.episode(0)["actions"][1:, 0], step, rtol=1e-6)
    with caplog.at_level(logging.WARNING):
        converted(root, tmp_path / "absolute")
    assert ("actions of ticks reach" in caplog.text) == (kind != pa.float64())


def test_falling_numbers_without_a_sign_have_negative_differences(tmp_path):
    column = pa.array((200 - FRAMES).astype(np.uint8))
    root = write_lerobot(
        tmp_path / "set", {"action": column}, {"action": {"dtype": "uint8", "shape": [1], "names": None}}
    )
    data = converted(root, tmp_path / "out", relative_actions=True)
    assert actions_of(data)[1][:, 0].tolist() == [0, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("column", "shape", "dtype"),
    [
        (pa.array([[[k, 0.0], [1.0, 2.0]] for k in FRAMES.tolist()], pa.list_(pa.list_(pa.float32()))), [2, 2], "float32"),
        (pa.array([[[k, 0], [1, 2]] for k in FRAMES.tolist()], pa.list_(pa.list_(pa.int16(), 2), 2)), [2, 2], "int16"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.list_(pa.uint8())), [4], "uint8"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.large_list(pa.float64())), [4], "float64"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.list_(pa.float16(), 4)), [4], "float16"),
    ],
)  # fmt: skip
def test_actions_of_any_shape_and_numeric_type_are_read(tmp_path, column, shape, dtype):
    root = write_lerobot(
        tmp_path / "set", {"action": column}, {"action": {"dtype": dtype, "shape": shape, "names": None}}
    )
    for actions, length in zip(actions_of(converted(root, tmp_path / "out")), LENGTHS, strict=True):
        np.testing.assert_array_equal(actions, [[k, 0, 1, 2] for k in range(length)])


def test_several_features_are_joined_to_one_action(tmp_path):
    columns = {"action": None, "action.arm": pa.array([[k, k + 0.5] for k in FRAMES.tolist()], pa.list_(pa.float32()))}
    columns |= {
        "action.gripper": pa.array((FRAMES % 2).astype(np.int64)),
        "action.x": pa.array(FRAMES.astype(np.float32)),
    }
    features = {
        "action": {"dtype": "string", "shape": [1], "names": None},
        "action.arm": {"dtype": "float32", "shape": [2], "names": ["x", "y"], "units": "mm"},
        "action.gripper": {"dtype": "int64", "shape": [1], "names": None},
        "action.x": {"dtype": "float32", "shape": [1], "names": ["x"]},
    }
    root = write_lerobot(tmp_path / "set", columns, features)
    data = converted(root, tmp_path / "out", action_key="action.arm,action.gripper")
    np.testing.assert_array_equal(actions_of(data)[1], [[k, k + 0.5, k % 2] for k in range(5)])
    assert data.action_names == ["x", "y", "action.gripper"] and data.action_units == ["mm", "mm", ""]
    assert data.metadata.action_key == "action.arm,action.gripper"
    assert "action.gripper" in describe(data.data_dir, 2)
    source = LeRobotSource(root, "me/set", action_key="action.arm,action.x")
    assert source.action_names == ["action.arm.x", "action.arm.y", "action.x.x"]
    with pytest.raises(
        ValueError, match=r"no feature 'arm' .*--action_key can be: action\.arm, action\.gripper, action\.x"
    ):
        LeRobotSource(root, "me/set", action_key="arm,action.x")


@pytest.mark.parametrize("video", [False, True])
def test_rows_are_taken_in_the_order_of_their_frame_index(tmp_path, video):
    """As lerobot pairs them; frames in a video go by time, those in the table with their row."""
    root = write_lerobot(tmp_path / "set", video=video)
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    data = converted(root, tmp_path / "out", target_fps=5)
    for position, actions in enumerate(actions_of(data)):
        kept = list(range(0, LENGTHS[position], 2))
        assert actions[:, 0].tolist() == kept and set(actions[:, 1]) == {position}
        assert numbers_of(data, position) == ({position}, kept)


def test_repeated_rows_are_refused(tmp_path):
    columns = {"frame_index": pa.array(np.where(FRAMES == 3, 2, FRAMES))}
    with pytest.raises(ValueError, match="the frame_index of episode 0 has gaps or repetitions"):
        converted(write_lerobot(tmp_path / "set", columns), tmp_path / "out")


def test_nested_names_are_kept(tmp_path):
    assert flatten_names([["kLeft", "kRight"]], 2) == flatten_names([["kLeft"], ["kRight"]], 2) == ["kLeft", "kRight"]
    assert flatten_names({"arm": [["a"], "b"]}, 2) == ["a", "b"] and flatten_names("ab", 2) is None
    features = {"action": {"dtype": "float32", "shape": [2], "names": [["kLeft", "kRight"]]}}
    data = converted(write_lerobot(tmp_path / "set", features=features), tmp_path / "out")
    assert data.action_names == ["kLeft", "kRight"] and "kRight" in describe(data.data_dir, 2)


@pytest.mark.parametrize("inner", [False, True])
def test_missing_actions_are_named(tmp_path, inner):
    """A null on the last step of an episode is common."""
    values = [[float(k), 0.0] for k in FRAMES]
    values[sum(LENGTHS[:2]) - 1] = [None, 0.0] if inner else None
    root = write_lerobot(tmp_path / "set", {"action": pa.array(values, pa.list_(pa.float32()))})
    with pytest.raises(ValueError, match=r"the action of episode 1 at frame 4 is missing \(null\)"):
        converted(root, tmp_path / "out")
    assert len(actions_of(converted(root, tmp_path / "rest", episodes="0,2"))) == 2


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}, {"bytes": None, "path": "../../secret.png"}])
def test_missing_images_are_named_and_paths_stay_inside_the_dataset(tmp_path, cell):
    images = [{"bytes": encoded(0, 0), "path": None}] * len(FRAMES)
    images[LENGTHS[0] + 2] = cell
    (tmp_path / "secret.png").write_bytes(encoded(1, 1))
    column = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    root = write_lerobot(tmp_path / "sets" / "set", {CAMERA: column})
    message = (
        r"names a file outside the dataset"
        if cell and cell["path"]
        else "the image of episode 1 at frame 2 is missing"
    )
    with pytest.raises(ValueError, match=message):
        converted(root, tmp_path / "out")


@pytest.mark.parametrize(
    "pattern", ["/etc/passwd", "../{chunk_index}/{file_index}.parquet", "a/../../{file_index}.parquet"]
)
def test_patterns_of_file_names_stay_inside_the_dataset(tmp_path, pattern):
    root = write_lerobot(tmp_path / "set", info={"data_path": pattern})
    with pytest.raises(ValueError, match="names a file outside the dataset"):
        LeRobotSource(root, "me/set")


def test_depth_is_refused_or_announced(tmp_path, caplog):
    depth = cv2.imencode(".png", np.full((16, 24), 500, np.uint16))[1].tobytes()
    column = pa.array(
        [{"bytes": depth, "path": None}] * len(FRAMES), pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    root = write_lerobot(tmp_path / "unsaid", {CAMERA: column})
    with pytest.raises(ValueError, match=r"episode 0, frame 0: the image has values of type uint16 \(a depth map\?\)"):
        converted(root, tmp_path / "out")
    said = {"info": {"is_depth_map": True}}
    with pytest.raises(ValueError, match="is a depth map, whose values do not fit"):
        LeRobotSource(write_lerobot(tmp_path / "said", {CAMERA: column}, camera_info=said), "me/set")
    with caplog.at_level(logging.WARNING):
        LeRobotSource(write_lerobot(tmp_path / "video", video=True, camera_info=said), "me/set")
    assert "is a depth map: its video is stored as gray frames" in caplog.text


def test_a_missing_video_is_found_before_the_work_begins(tmp_path):
    root = write_lerobot(tmp_path / "set", video=True)
    (root / f"videos/{CAMERA}/chunk-000/file-001.mp4").unlink()
    message = r"file-001.mp4 is missing: .*leave out its episodes with --episodes 0:1,2:3\."
    for attempt in (lambda: converted(root, tmp_path / "out"), lambda: LeRobotWindows(root, 2)):
        with pytest.raises(FileNotFoundError, match=message):
            attempt()
    assert not (tmp_path / "out").exists()
    assert len(actions_of(converted(root, tmp_path / "rest", episodes="0:1,2:3"))) == 2


@pytest.mark.parametrize(
    "relative", ["meta/info.json", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"]
)
def test_git_lfs_pointers_are_recognized(tmp_path, relative):
    root = write_lerobot(tmp_path / "set")
    (root / relative).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        ValueError, match=f"{Path(relative).name} is a Git LFS pointer, not the file itself: run `git lfs pull`"
    ):
        converted(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_forks_of_macos_are_passed_over(tmp_path):
    root = write_lerobot(tmp_path / "set")
    (root / "meta/episodes/chunk-000/._file-000.parquet").write_bytes(b"\0\5\x16\7")
    assert len(LeRobotSource(root, "me/set").numbers) == 3


def test_gaps_in_episode_numbers_and_an_unsaid_total_are_fine(tmp_path):
    root = write_lerobot(
        tmp_path / "set", {"episode_index": pa.array(np.array([0, 2, 5])[OWNERS])}, info={"total_episodes": None}
    )
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(0, "episode_index", pa.array([0, 2, 5])), path)
    data = converted(root, tmp_path / "out")
    assert data.source_episodes.tolist() == [0, 2, 5] and numbers_of(data, 2) == ({2}, list(range(6)))
    assert len(converted(root, tmp_path / "part", episodes="1:6").source_episodes) == 2
    with pytest.raises(ValueError, match="--episodes 3 lies outside the dataset"):
        LeRobotSource(root, "me/set", episodes="3")


@pytest.mark.parametrize(
    "info",
    [
        {"fps": 0}, {"fps": float("nan")}, {"fps": "ten"}, {"fps": None}, {"features": []}, {"features": {"a": 3}},
        {"features": {"action": {"dtype": "float32", "shape": [10**12]}}}, {"total_episodes": "three"},
        {"features": {"action": {"dtype": 5, "shape": [2]}}}, {"data_path": 3}, {"data_path": "{nothing}"},
    ],
)  # fmt: skip
def test_impossible_values_of_the_info_are_refused(tmp_path, info):
    with pytest.raises(ValueError, match=r"info\.json is damaged") as caught:
        LeRobotSource(write_lerobot(tmp_path / "set", info=info), "me/set")
    assert "\n" not in str(caught.value)


def test_a_deeply_nested_info_is_refused(tmp_path):
    root = write_lerobot(tmp_path / "set")
    (root / "meta" / "info.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"info\.json is damaged"):
        LeRobotSource(root, "me/set")


def test_displacements_of_frames_left_out_are_added_up(tmp_path, caplog):
    """Component 0 is a displacement, component 1 a target."""
    rng = np.random.default_rng(0)
    moves = rng.integers(-4, 5, len(FRAMES)) / 4
    actions = np.stack([moves, OWNERS], axis=1).astype(np.float32)
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    with caplog.at_level(logging.INFO):
        data = converted(root, tmp_path / "out", target_fps=5, displacement_action_dims=(0,))
    assert "adding up the displacements of every 2 frames in action dimensions [0]" in caplog.text
    for position, found in enumerate(actions_of(data)):
        own = moves[position == OWNERS]
        np.testing.assert_array_equal(found[:, 0], [own[k : k + 2].sum() for k in range(0, len(own), 2)])
        assert set(found[:, 1]) == {position}
    assert data.relative_actions == [True, False]
    assert data.metadata.conversion["displacement_action_dims"] == [0]
    caplog.clear()
    thinned = converted(root, tmp_path / "thinned", target_fps=5)
    assert "give" not in caplog.text or "--displacement_action_dims 0" in caplog.text
    assert thinned.relative_actions == [False, False]


def test_actions_around_zero_are_announced_when_frames_are_left_out(tmp_path, caplog):
    moves = np.tile([0.5, -0.5, 0.25], len(FRAMES))[: len(FRAMES)].astype(np.float32)
    feature = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    root = write_lerobot(tmp_path / "set", {"action": pa.array(moves)}, feature)
    with caplog.at_level(logging.WARNING):
        converted(root, tmp_path / "out", target_fps=5)
    assert "vary around zero, as displacements do" in caplog.text and "--displacement_action_dims 0" in caplog.text
    data = converted(root, tmp_path / "all", target_fps=5, displacement_action_dims="all")
    assert data.relative_actions == [True] and actions_of(data)[1][:, 0].tolist() == [0.75, -0.25, 0.5]


def test_differences_of_displacements_are_refused(tmp_path):
    root = write_lerobot(tmp_path / "set")
    with pytest.raises(ValueError, match=r"--relative_actions would take differences of the displacements \[1\]"):
        converted(root, tmp_path / "out", relative_actions=True, displacement_action_dims=(1,))
    data = converted(
        root, tmp_path / "both", relative_actions=True, displacement_action_dims=(1,), absolute_action_dims=(1,)
    )
    assert data.relative_actions == [True, True]
    with pytest.raises(ValueError, match=r"--displacement_action_dims \[2\] do not exist"):
        converted(root, tmp_path / "none", displacement_action_dims=(2,))


class World:
    """What `opener_for_world` asks of a world's configuration."""

    fps, action_offset, relative_actions = 5.0, 1, None

    def __init__(self, stats, names=None):
        self.action_stats, self.action_names = stats, names


def test_a_world_of_displacements_gets_them_added_up(tmp_path):
    moves = np.random.default_rng(1).normal(size=len(FRAMES)) + 0.1
    actions = np.stack([moves, FRAMES], axis=1).astype(np.float32)
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    data = converted(root, tmp_path / "out", target_fps=5, displacement_action_dims=(0,))
    opened = opener_for_world(root, World(data.action_stats), (16, 24))(split="all")
    for position in range(3):
        np.testing.assert_array_equal(opened.episode(position)["actions"][1:], actions_of(data)[position][:-1])


def test_a_world_finds_its_actions_under_another_name(tmp_path):
    features = {"action": {"dtype": "string", "shape": [1], "names": None}}
    features["actions"] = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    column = pa.array([[float(k), 0.0] for k in FRAMES], pa.list_(pa.float32()))
    root = write_lerobot(
        tmp_path / "set", {"action": None, "actions": column}, features | {"action": features["actions"]}
    )
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["action"]
    (root / "meta/info.json").write_text(json.dumps(info))
    assert opener_for_world(root, World(None, ["x", "y"]), (16, 24))(split="all").action_names == ["x", "y"]
    with pytest.raises(ValueError, match=r"has no feature 'action' .*--action_key can be: actions"):
        opener_for_world(root, World(None, ["a", "b"]), (16, 24))
    named = opener_for_world(root, World(None), (16, 24), action_key="actions")(split="all")
    assert named.action_names == ["x", "y"]


def test_nearly_constant_actions_have_no_deviation(tmp_path):
    """Noise below what float32 resolves must not be blown up to a signal by its own standard deviation."""
    rng = np.random.default_rng(0)
    actions = np.stack([np.sin(FRAMES / 3), 1.5 + 1e-7 * rng.standard_normal(len(FRAMES))], axis=1).astype(np.float32)
    assert actions[:, 1].std() > 0
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    stats = converted(root, tmp_path / "out").action_stats
    assert stats["std"][1] == 0 and stats["std"][0] == pytest.approx(actions[:, 0].std(), rel=1e-5)
    assert LeRobotWindows(root, None, split="all").action_stats["std"][1] == 0


def test_outliers_are_announced(tmp_path, caplog):
    actions = np.random.default_rng(0).uniform(-1, 1, (20_000, 1))
    from dreamer_hf.data.action_data import ActionStatistics
    from dreamer_hf.data.convert import _warn_of_values

    for actions[7, 0], announced in ((1.0, False), (1e6, True)):
        caplog.clear()
        _warn_of_values(ActionStatistics.of(actions).to_dict(), ["grip"])
        assert ("actions of grip reach 1e+06" in caplog.text) == announced


def test_an_unknown_repository_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder here nor a dataset on the Hub"):
        LeRobotSelection(TINY_REPO_ID).open()

"""LeRobot datasets as people have them: older formats, other shapes, types, names, orders, gaps, hostile paths."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writer import CAMERA, FRAMES, LENGTHS, OWNERS, actions_of, converted, encoded, numbers_of, write_lerobot

from dreamer_hf.data import LeRobotWindows
from dreamer_hf.data.sources.lerobot_info import local_root
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource
from hub_stand_in import HubStandIn
from tiny import TINY_REPO_ID

CONVERTER = Path(__file__).parents[2] / "conversion" / "lerobot_to_hdf5.py"


V2_PATHS = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}


@pytest.mark.parametrize("version", ["v1.6", "v2.0", "v2.1"])
def test_older_formats_are_recognized_before_their_file_names_and_the_error_says_how_to_migrate(tmp_path, version):
    root = write_lerobot(tmp_path / "old", info={"codebase_version": version, **V2_PATHS})
    with pytest.raises(ValueError, match=f"me/set is a LeRobot dataset of format {version}: ") as caught:
        LeRobotSource(root, "me/set")
    advice = str(caught.value)
    if version == "v2.1":
        command = f"convert_dataset_v21_to_v30 --repo-id=me/set --root={root} --push-to-hub=false`"
        assert command in advice and f"--local_dir {root}" in advice
    else:
        assert "bring it to v2.1 with an older one first (0.3.3 has the step from v2.0)" in advice


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_lerobot_downloaded_is_not_downloaded_again(tmp_path):
    root = write_lerobot(tmp_path / "set", video=True)
    with HubStandIn("me/set", "secret") as hub:
        hub.files, hub.tags = files_of(root), ["v3.0"]
        download = "import sys; from huggingface_hub import snapshot_download; repo, cache = sys.argv[1:]; "
        download += "snapshot_download(repo, repo_type='dataset', revision='v3.0', cache_dir=cache)"
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


def test_an_unknown_repository_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder here nor a dataset on the Hub"):
        LeRobotSelection(TINY_REPO_ID).open()

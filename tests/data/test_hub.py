"""Pushing and reading with the real huggingface_hub client, against a stand-in for the server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.video_source import VideoSource
from hub_stand_in import NEW_FILES, HubStandIn
from tiny import TINY_REPO_ID
from tiny_videos import frames_of, write_video

CONVERTER = Path(__file__).parents[2] / "conversion" / "lerobot_to_hdf5.py"
REPO_ID = "someone/tiny-shards"

PUSH = """
import sys
from dreamer_hf.cli import run_script
from dreamer_hf.data.dataset_card import push_shards
run_script(lambda: print(push_shards(sys.argv[1], sys.argv[2])))
"""

READ = """
import sys
from pathlib import Path
from dreamer_hf.data import ShardDataset
data = ShardDataset(sys.argv[1], window_size=8, split="all")
print(sorted(path.name for path in data.data_dir.iterdir()))
frames = [data[i]["pixel_values_videos"].double().mean().item() for i in (len(data) - 1, 0)]
print(sorted(path.name for path in data.data_dir.iterdir()))
print(*frames)
"""


def run(code, hub, home, *arguments, token="secret"):
    """Runs code, a script given by its path, or Python with some arguments, where the stand-in is the Hub."""
    environment = os.environ | hub.environment(home, token) | {"HF_LEROBOT_HOME": str(home / "lerobot")}
    start = code if isinstance(code, list) else [code] if isinstance(code, Path) else ["-c", code]
    command = [sys.executable, *map(str, start), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture
def folder(tiny_shards, tmp_path):
    return shutil.copytree(tiny_shards, tmp_path / "shards")


@pytest.mark.slow
def test_a_pushed_folder_is_read_back_shard_by_shard(folder, tmp_path):
    from dreamer_hf.data import ShardDataset

    with HubStandIn(REPO_ID, "secret") as hub:
        pushed = run(PUSH, hub, tmp_path / "home", folder, REPO_ID)
        assert pushed.returncode == 0, pushed.stderr
        read = run(READ, hub, tmp_path / "home", REPO_ID)
        assert read.returncode == 0, read.stderr
    shards = [f"shard_000{number}.h5" for number in range(3)]
    assert set(hub.files) == {"metadata.json", "index.npz", "README.md", "contact_sheet.png", *shards}
    assert hub.files["shard_0001.h5"] == (folder / "shard_0001.h5").read_bytes()
    card = hub.files["README.md"].decode()
    assert f'ShardDataset("{REPO_ID}"' in card and "| step_x |" in card and "world-model" in card
    before, after, means = read.stdout.splitlines()
    assert before == str(["index.npz", "metadata.json"])
    assert after == str(["index.npz", "metadata.json", "shard_0000.h5", "shard_0002.h5"])
    local = ShardDataset(folder, window_size=8, split="all")
    expected = [local[i]["pixel_values_videos"].double().mean().item() for i in (len(local) - 1, 0)]
    np.testing.assert_allclose([float(mean) for mean in means.split()], expected)


@pytest.mark.slow
def test_a_refused_push_is_one_sentence(folder, tmp_path):
    with HubStandIn(REPO_ID, "secret") as hub:
        refused = run(PUSH, hub, tmp_path / "home", folder, REPO_ID, token="wrong")
    assert refused.returncode == 2 and f"error: {REPO_ID} cannot be written (" in refused.stderr
    assert "hf auth login" in refused.stderr and "Traceback" not in refused.stderr and not hub.files


@pytest.mark.slow
def test_a_lerobot_dataset_comes_from_the_hub_and_only_what_is_needed(tiny_lerobot, tiny_shards, tmp_path):
    from dreamer_hf.data import ShardDataset

    with HubStandIn(TINY_REPO_ID, "secret") as hub:
        paths = [path for path in tiny_lerobot.rglob("*") if path.is_file()]
        hub.files = {path.relative_to(tiny_lerobot).as_posix(): path.read_bytes() for path in paths}
        hub.files["videos/of/another/camera.mp4"] = b"not asked for"
        hub.tags = ["v3.0"]
        out = tmp_path / "shards"
        done = run(CONVERTER, hub, tmp_path / "home", "--repo_id", TINY_REPO_ID, "--output_dir", out)
    assert done.returncode == 0, done.stderr
    assert any("/revision/v3.0" in line for line in hub.requests)
    assert not any("another" in line or "/revision/main" in line for line in hub.requests)
    ours, local = (ShardDataset(path, None, split="all") for path in (out, tiny_shards))
    assert ours.num_episodes == local.num_episodes
    for number in range(local.num_episodes):
        for name, values in local.episode(number).items():
            np.testing.assert_array_equal(ours.episode(number)[name], values)


@pytest.mark.slow
def test_a_converter_pushes_what_it_wrote(tiny_lerobot, tmp_path):
    with HubStandIn(REPO_ID, "secret") as hub:
        source = ["--repo_id", TINY_REPO_ID, "--local_dir", tiny_lerobot]
        target = ["--output_dir", tmp_path / "shards", "--push_to_hub", REPO_ID]
        done = run(CONVERTER, hub, tmp_path / "home", *source, *target)
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    assert {name: hub.files[name] for name in written} == written and "README.md" in hub.files


@pytest.mark.slow
def test_shards_are_written_to_the_hub_directly(tmp_path):
    """Two processes commit shards to a new repository, one commit twice; then the shards are read."""
    home, address = tmp_path / "home", f"hf://datasets/{REPO_ID}"
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames_of(number), "libx264", "yuv444p")
    given = ["-m", "dreamer_hf", "convert", "video", "--video_dir", tmp_path / "videos", "--episodes_per_shard", 1]
    expected = convert(VideoSource(tmp_path / "videos"), tmp_path / "out", ConversionOptions(episodes_per_shard=1))
    with HubStandIn(REPO_ID, "secret") as hub:
        hub.files |= NEW_FILES
        missing = run(given, hub, home, "--output_dir", "hf://datasets/someone/misspelled")
        assert missing.returncode == 2 and "Traceback" not in missing.stderr
        assert "hf://datasets/someone/misspelled does not exist, or you may not see it" in missing.stderr
        refused = run(given, hub, home, "--output_dir", address, token="wrong")
        assert refused.returncode == 2 and f"{address} cannot be written (" in refused.stderr
        assert "Traceback" not in refused.stderr and hub.files == NEW_FILES
        hub.refusals = 1
        done = run(given, hub, home, "--output_dir", address, "--num_workers", 2)
        assert done.returncode == 0 and "HTTP" not in done.stderr, done.stderr
        assert hub.refusals == 0
        assert hub.files == NEW_FILES | {path.name: path.read_bytes() for path in expected.iterdir()}
        read = run(READ, hub, home, address)
        assert read.returncode == 0 and "shard_0002.h5" in read.stdout, read.stderr

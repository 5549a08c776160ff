"""Pushing and reading with the real huggingface_hub client, against a stand-in for the server."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hub_stand_in import HubStandIn

REPO_ID = "someone/tiny-shards"

PUSH = """
import sys
from dreamer_hf.cli import run_script
from dreamer_hf.data.hub import push_shards
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
    environment = os.environ | hub.environment(home, token)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture
def folder(tiny_shards, tmp_path):
    return shutil.copytree(tiny_shards, tmp_path / "shards")


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


def test_a_refused_push_is_one_sentence(folder, tmp_path):
    with HubStandIn(REPO_ID, "secret") as hub:
        refused = run(PUSH, hub, tmp_path / "home", folder, REPO_ID, token="wrong")
    assert refused.returncode == 2 and f"error: {REPO_ID} cannot be written (" in refused.stderr
    assert "hf auth login" in refused.stderr and "Traceback" not in refused.stderr and not hub.files

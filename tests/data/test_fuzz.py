"""Random truncations and byte flips of every kind of file: read right or refused in one sentence, never wrong frames.

All mutations run in a few child processes, so that a crash of the interpreter would be seen as such.
"""

import hashlib
import multiprocessing
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.shard_dataset import ShardDataset
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from dreamer_hf.data.sources.rlds_source import RldsSource
from tiny import TINY_REPO_ID

pytestmark = pytest.mark.slow

RLDS = Path(__file__).parents[1] / "fixtures" / "rlds" / "tfrecord"
MUTATIONS = 44
"""For each kind of file; seven kinds make 308."""


def digest(folder):
    """What a reader sees: every frame, action and mask."""
    data, seen = ShardDataset(folder, None, split="all"), hashlib.sha256()
    for position in range(data.num_episodes):
        for value in data.episode(position).values():
            seen.update(np.ascontiguousarray(value.numpy()).tobytes())
    return seen.hexdigest()


def read_shards(folder, scratch):
    return digest(folder)


def convert_lerobot(folder, scratch):
    return digest(convert(LeRobotSource(folder, TINY_REPO_ID), scratch, ConversionOptions()))


def convert_rlds(folder, scratch):
    return digest(convert(RldsSource(folder, "success", "observation/image"), scratch, ConversionOptions()))


def mutate(path, rng):
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        content = content[: rng.integers(len(content))]
    else:
        for position in rng.integers(len(content), size=rng.integers(1, 4)):
            content[position] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def try_mutation(reader, original, pattern, seed, scratch):
    """Returns "same", "different" or the error."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    copy = Path(scratch) / "copy"
    shutil.copytree(original, copy)
    files = sorted(copy.glob(pattern))
    mutate(files[rng.integers(len(files))], rng)
    try:
        return reader(copy, Path(scratch) / "out")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error), str(error)
        return f"refused: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.mark.parametrize(
    ("kind", "reader", "pattern", "checksums"),
    [
        ("shards", read_shards, "shard_*.h5", True),
        ("shards", read_shards, "metadata.json", True),
        ("shards", read_shards, "index.npz", True),
        ("lerobot", convert_lerobot, "videos/**/*.mp4", False),
        ("lerobot", convert_lerobot, "**/*.parquet", False),
        ("lerobot", convert_lerobot, "meta/info.json", False),
        ("rlds", convert_rlds, "*success.tfrecord*", True),
    ],
)
def test_damaged_files_are_read_right_or_refused(
    tiny_shards, tiny_lerobot, tmp_path, kind, reader, pattern, checksums
):
    original = {"shards": tiny_shards, "lerobot": tiny_lerobot, "rlds": RLDS}[kind]
    intact = reader(original, tmp_path / "intact")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        runs = [
            pool.submit(try_mutation, reader, original, pattern, seed, tmp_path / str(seed))
            for seed in range(MUTATIONS)
        ]
        results = [run.result(timeout=120) for run in runs]
    refused = [result for result in results if result.startswith("refused: ")]
    different = [result for result in results if result != intact and result not in refused]
    assert refused, "some of the mutations must have hurt"
    if checksums:
        assert not different

"""Conversion on real clusters: the same bytes as on one machine, whatever dies."""

import logging
import subprocess
import sys
import threading
import time

import psutil
import pytest

from computed_source import ComputedSource
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import RayWorkers
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from waiting import wait_until

pytestmark = pytest.mark.cluster
OPTIONS = ConversionOptions(episodes_per_shard=2)
CONVERT = """
import sys
from computed_source import ComputedSource
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import RayWorkers
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert

address, folder, seconds = sys.argv[1:4]
with connected(address):
    source = ComputedSource(16, seconds=float(seconds))
    convert(source, folder, ConversionOptions(episodes_per_shard=2), JobOptions(resume=True), RayWorkers())
"""


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def num_shards(folder) -> int:
    return len(list(folder.glob("shard_*.h5")))


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """What one machine makes of sixteen episodes."""
    folder = tmp_path_factory.mktemp("one_machine") / "out"
    convert(ComputedSource(16), folder, OPTIONS)
    return content(folder)


def test_a_node_may_die_and_so_may_the_driver(cluster, expected, tmp_path, caplog):
    """First a node is killed, and its shards go to the others. Then the driver is, and another one continues."""
    for _ in range(3):
        cluster.add_node()
    folder = tmp_path / "out"

    def kill() -> None:
        wait_until(lambda: folder.exists() and num_shards(folder) >= 1, "the first shard")
        cluster.kill_node(cluster.nodes[0])

    killer = threading.Thread(target=kill)
    killer.start()
    with connected(cluster.address), caplog.at_level(logging.WARNING):
        convert(ComputedSource(16, seconds=1.5), folder, OPTIONS, workers=RayWorkers())
    killer.join()
    assert content(folder) == expected
    assert "died: another one does its work" in caplog.text

    folder = tmp_path / "again"
    command = [sys.executable, "-c", CONVERT, cluster.address, str(folder)]
    driver = subprocess.Popen([*command, "1.5"])
    wait_until(lambda: folder.exists() and num_shards(folder) >= 2, "two shards")
    driver.kill()
    driver.wait()
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard_*.h5")}
    assert 0 < len(done) < 8
    subprocess.run([*command, "0"], check=True)
    assert content(folder) == expected
    assert all(path.stat().st_mtime_ns == moment for path, moment in done.items()), "finished shards stay"


def test_the_memory_of_the_driver_does_not_grow_with_the_episodes(cluster, tmp_path):
    cluster.add_node()
    process, sizes = psutil.Process(), []

    class Watched(RayWorkers):
        """Notes the memory of this process while units are handed out."""

        def convert(self, tasks, progress) -> None:
            show = progress.show

            def watched(frames: int, episodes: int) -> None:
                sizes.append(process.memory_info().rss)
                show(frames, episodes)

            progress.show = watched
            super().convert(tasks, progress)

    source = ComputedSource(1500, length=1, size=8)
    with connected(cluster.address):
        started = time.monotonic()
        convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=5), JobOptions(), Watched())
    assert num_shards(tmp_path / "out") == 300 and time.monotonic() - started < 600
    early, late = sizes[len(sizes) // 4], sizes[-1]
    assert late - early < 16 << 20, f"{(late - early) >> 20} MiB more"

"""Conversion on real clusters: the same bytes as on one machine, whatever dies."""

import logging
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest

from computed_source import ComputedSource
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import RayWorkers
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from tiny_videos import frames_of, write_video
from waiting import wait_until

pytestmark = pytest.mark.cluster
OPTIONS = ConversionOptions(episodes_per_shard=2)


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def num_shards(folder) -> int:
    return len(list(folder.glob("shard_*.h5")))


def test_a_node_may_die(cluster, tmp_path, caplog):
    """One of three nodes is killed, and its shards go to the others."""
    source, folder = ComputedSource(16), tmp_path / "out"
    expected = content(convert(source, tmp_path / "one_machine", OPTIONS))
    for _ in range(3):
        cluster.add_node()
    notes = []

    class Noting(RayWorkers):
        """Notes what the progress bar shows with the frames."""

        def convert(self, tasks, progress) -> None:
            progress.note = notes.append
            super().convert(tasks, progress)

    def kill() -> None:
        wait_until(lambda: folder.exists() and num_shards(folder) >= 1, "the first shard")
        cluster.kill_node(cluster.nodes[0])

    killer = threading.Thread(target=kill)
    killer.start()
    with connected(cluster.address), caplog.at_level(logging.WARNING):
        convert(replace(source, seconds=1.5), folder, OPTIONS, workers=Noting())
    killer.join()
    assert content(folder) == expected
    assert "died: another one does its work" in caplog.text
    assert "3 nodes, 3 workers" in notes and "2 nodes, 2 workers, 1 retry" in notes


def test_the_driver_may_die(cluster, tmp_path):
    """The command is killed while three nodes work, and continues with --resume."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "000.mp4", frames_of(0, count=100), "libx264", "yuv444p")
    for number in range(1, 100):
        (tmp_path / "videos" / f"{number:03d}.mp4").hardlink_to(tmp_path / "videos" / "000.mp4")
    command = [sys.executable, "-m", "dreamer_hf", "convert", "video", "--video_dir", tmp_path / "videos"]
    command += ["--episodes_per_shard", "1", "--output_dir"]
    subprocess.run([*command, tmp_path / "one_machine", "--num_workers", "1"], check=True)
    for _ in range(3):
        cluster.add_node()
    folder = tmp_path / "out"
    driver = subprocess.Popen([*command, folder, "--ray", cluster.address])
    wait_until(lambda: folder.exists() and num_shards(folder) >= 2, "two shards", 600)
    driver.kill()
    driver.wait()
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard_*.h5")}
    assert 0 < len(done) < 100
    subprocess.run([*command, folder, "--ray", cluster.address, "--resume"], check=True)
    assert content(folder) == content(tmp_path / "one_machine")
    assert all(path.stat().st_mtime_ns == moment for path, moment in done.items()), "finished shards stay"


def test_the_memory_of_the_driver_does_not_grow_with_the_episodes(tmp_path):
    """It converts 100,000 small episodes on the cores of this machine."""
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

    source = ComputedSource(100_000, length=1, size=8)
    with connected("local"):
        convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=500), workers=Watched())
    assert num_shards(tmp_path / "out") == 200
    early, late = sizes[len(sizes) // 4], sizes[-1]
    assert late - early < 16 << 20, f"{(late - early) >> 20} MiB more"

"""Measure work on a Ray cluster of this machine: how it scales, and what the driver needs, for docs/scaling.md.

Episodes are computed, so that nothing but conversion itself is measured. Times are processor time, of everything
(workers, Ray and the driver), as other programs take wall-clock time away.

python benchmarks/cluster.py scaling                     one worker against two
python benchmarks/cluster.py memory --episodes 100000    memory of the driver from the first episode to the last
python benchmarks/cluster.py proxy --players 8           processor time of the proxy for each frame of a player
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from websockets.asyncio.client import connect

from benchmark_tools import print_table
from dreamer_hf.cli import run_script
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import prepare_conversion
from dreamer_hf.cluster.worker import Stage
from dreamer_hf.cluster.worker_pool import WorkerPool
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.episodes import Episode
from dreamer_hf.data.output_folder import LocalFolder
from dreamer_hf.data.shard_task import Conversion
from serve import read_address, save_world


@dataclass
class ComputedSource:
    """Episodes that are computed: smooth frames of moving gradients; an `EpisodeSource`."""

    num_episodes: int
    length: int
    size: int
    fps: float = 10.0
    action_dim: int = 2
    action_names: list[str] = field(default_factory=lambda: ["x", "y"])
    action_units: None = None
    image_key: str = "image"
    action_key: str = "action"
    camera_names: None = None
    state: None = None
    lengths: None = None

    def __post_init__(self):
        self.numbers = range(self.num_episodes)
        self.description = {"format": "computed"}

    def check(self) -> None:
        """There are no files."""

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        ramp = np.arange(self.size, dtype=np.uint8)
        for number in numbers:
            scene = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[None] ^ ramp[:, None]), -1)
            frames = (np.roll(scene, number + time_step, axis=0) for time_step in range(self.length))
            yield Episode(number, frames, lambda: np.zeros((self.length, 2), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scaling", "memory", "proxy"))
    parser.add_argument("--episodes", type=int, default=4000, help="Episodes to convert (default: %(default)s).")
    parser.add_argument("--players", type=int, default=8, help="Players (default: %(default)s).")
    parser.add_argument("--seconds", type=float, default=10, help="Seconds of play (default: %(default)s).")
    args = parser.parse_args()
    if min(args.episodes, args.players, args.seconds) <= 0:
        raise ValueError("expected positive numbers for --episodes, --players and --seconds.")
    if args.what == "proxy":
        with tempfile.TemporaryDirectory() as folder:
            measure_proxy(Path(folder), args.players, args.seconds)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        if args.what == "scaling":
            measure_scaling(Path(folder), args.episodes)
        else:
            measure_memory(Path(folder), args.episodes)


def measure_scaling(folder: Path, num_episodes: int) -> None:
    """Convert the same episodes with one worker and with two."""
    rows, per_second = [], {}
    for workers in (1, 2):
        conversion = _conversion(folder / str(workers), ComputedSource(num_episodes, length=40, size=64), 10)
        units = list(enumerate(conversion.plan()))
        with WorkerPool(Stage(prepare_conversion, (conversion,)), workers) as pool:
            _use_up(pool.run(units[: 4 * workers]))  # starts the workers
            before, started = processor_seconds(), time.monotonic()
            _use_up(pool.run(units[4 * workers :]))
            seconds, wall = processor_seconds() - before, time.monotonic() - started
        frames = pool.status.frames
        per_second[workers] = frames / seconds
        rows.append([str(workers), str(frames), f"{seconds:.1f}", f"{per_second[workers]:.0f}", f"{wall:.1f}"])
    print_table(["workers", "frames", "processor seconds", "frames per processor second", "seconds"], rows)
    print(f"\nEfficiency of two workers by processor time: {per_second[2] / per_second[1]:.2f}")


def measure_memory(folder: Path, num_episodes: int) -> None:
    """Convert many small episodes, and look at the memory of this process in between."""
    conversion = _conversion(folder / "out", ComputedSource(num_episodes, length=1, size=8), 10)
    process, rows, shown = psutil.Process(), [], 0
    with WorkerPool(Stage(prepare_conversion, (conversion,))) as pool:
        for done, _ in enumerate(pool.run(enumerate(conversion.plan())), start=1):
            episodes = done * 10
            if episodes == 10 or episodes * 10 // num_episodes > shown:
                shown = episodes * 10 // num_episodes
                rows.append([str(episodes), f"{process.memory_info().rss / 2**20:.1f}"])
    print_table(["episodes", "memory of the driver, MiB"], rows)


def measure_proxy(folder: Path, num_players: int, seconds: float) -> None:
    """Serve a toy world from one engine, and measure what the proxy and the engine take for each frame."""
    save_world(folder)
    command = [sys.executable, "-m", "dreamer_hf", "serve", "--ray", "local", "--engines", "1", "--model", str(folder)]
    command += ["--port", "0", "--device", "cpu", "--engine", "torch", "--max_sessions", str(num_players)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address, proxy = read_address(server), psutil.Process(server.pid)
        frames, own, all_seconds = asyncio.run(play(address, num_players, seconds, proxy))
        rows = [
            ["players, frames/s of each", f"{num_players}, {frames / seconds / num_players:.1f}"],
            ["proxy, processor time for each frame", f"{1e3 * own / frames:.2f} ms"],
            ["engine and Ray, processor time for each frame", f"{1e3 * (all_seconds - own) / frames:.2f} ms"],
        ]
        print_table(["served from a cluster", "measured"], rows)
    finally:
        server.terminate()
        server.wait(60)


async def play(address: str, num_players: int, seconds: float, proxy: psutil.Process) -> tuple[int, float, float]:
    """Play, and return the frames of all players and the processor time of the proxy and of everything."""
    frames, playing = 0, [0] * num_players

    async def player(number: int) -> None:
        nonlocal frames
        async with connect_when_ready(f"ws://{address}/play") as socket:
            async for data in socket:
                if isinstance(data, bytes):
                    playing[number], frames = 1, frames + 1
                    await socket.send('{"type": "input", "axes": [0.5, 0]}')

    async with contextlib.AsyncExitStack() as stack:
        tasks = [asyncio.create_task(player(number)) for number in range(num_players)]
        stack.callback(lambda: [task.cancel() for task in tasks])
        while sum(playing) < num_players:
            await asyncio.sleep(0.1)
        first, own, everything = frames, sum(proxy.cpu_times()[:2]), processor_seconds(proxy)
        await asyncio.sleep(seconds)
        return frames - first, sum(proxy.cpu_times()[:2]) - own, processor_seconds(proxy) - everything


@contextlib.asynccontextmanager
async def connect_when_ready(url: str):
    """Connect to a server; the first message says whether an engine is ready, and until then this tries again."""
    while True:
        async with connect(url) as socket:
            if '"final"' not in await socket.recv():
                yield socket
                return
        await asyncio.sleep(1)


def processor_seconds(process: psutil.Process | None = None) -> float:
    """Return the processor time of a process (default: this one) and of everything that it has started."""
    process, total = process or psutil.Process(), 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _conversion(folder: Path, source: ComputedSource, episodes_per_shard: int) -> Conversion:
    folder.mkdir()
    return Conversion(source, LocalFolder(folder), ConversionOptions(episodes_per_shard=episodes_per_shard))


def _use_up(results: Iterator) -> None:
    for _ in results:
        pass


if __name__ == "__main__":
    run_script(main)

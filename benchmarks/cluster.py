"""Measure work on a Ray cluster of this machine: how it scales, and what the driver needs, for docs/scaling.md.

Episodes are computed, so that only conversion itself is measured. Times are processor time, of everything
(workers, Ray and the driver), as other programs take wall-clock time away.

python benchmarks/cluster.py scaling                     one worker against two
python benchmarks/cluster.py memory --episodes 100000    memory of the driver from the first episode to the last
python benchmarks/cluster.py proxy --players 8           processor time of the proxy for each frame of a player
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from dreamer_hf.cli import run_script
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import prepare_conversion
from dreamer_hf.cluster.engine_replica import EngineAddress
from dreamer_hf.cluster.fleet import SERVING, Fleet, FleetEngine
from dreamer_hf.cluster.proxy import Proxy, make_proxy_app
from dreamer_hf.cluster.worker import Stage
from dreamer_hf.cluster.worker_pool import WorkerPool
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.episodes import Episode
from dreamer_hf.data.output_folder import LocalFolder
from dreamer_hf.data.shard_task import Conversion
from dreamer_hf.serve.serve_options import ServeOptions
from dreamer_hf.serve.server import limited_server, listen

EPISODES_PER_SHARD = 100
FPS = 20
FRAME_BYTES = 8_000
"""Of the frames that the proxy passes on: a JPEG of 256 pixels has about this size."""


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
    rewards: None = None
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
        measure_proxy(args.players, args.seconds)
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
    show(["workers", "frames", "processor seconds", "frames per processor second", "seconds"], rows)
    print(f"\nEfficiency of two workers by processor time: {per_second[2] / per_second[1]:.2f}")


def measure_memory(folder: Path, num_episodes: int) -> None:
    """Convert many small episodes, and look at the memory of this process in between."""
    conversion = _conversion(folder / "out", ComputedSource(num_episodes, length=1, size=8), EPISODES_PER_SHARD)
    process, rows, shown = psutil.Process(), [], 0
    with WorkerPool(Stage(prepare_conversion, (conversion,))) as pool:
        for done, _ in enumerate(pool.run(enumerate(conversion.plan())), start=1):
            episodes = done * EPISODES_PER_SHARD
            if done == 1 or episodes * 10 // num_episodes > shown:
                shown = episodes * 10 // num_episodes
                rows.append([str(episodes), f"{process.memory_info().rss / 2**20:.1f}"])
    show(["episodes", "memory of the driver, MiB"], rows)


def measure_proxy(num_players: int, seconds: float) -> None:
    """Pass frames on from a process that sends them, as an engine does, to a process of players."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    engine = spawn.Process(target=run_engine, args=(theirs,), daemon=True)
    engine.start()
    fleet = OneEngine(ours.recv())
    options = ServeOptions(port=0, max_sessions=num_players)
    with listen(options) as listener:
        players = spawn.Process(target=run_players, args=(theirs, listener.getsockname()[1], num_players), daemon=True)
        server = limited_server(make_proxy_app(Proxy(fleet, options)), options)
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
        players.start()
        ours.recv()  # everybody plays
        ours.send("start")
        used = time.process_time()
        time.sleep(seconds)
        used = time.process_time() - used
        ours.send("stop")
        frames = ours.recv()
        server.should_exit = True
    rows = [
        ["players, frames/s of each", f"{num_players}, {frames / seconds / num_players:.1f} of {FPS}"],
        ["bytes of a frame", str(FRAME_BYTES)],
        ["processor time of the proxy for each frame", f"{1e3 * used / frames:.3f} ms"],
    ]
    show(["a proxy in front of an engine", "measured"], rows)


class OneEngine(Fleet):
    """A fleet of one engine that runs already, at a port of this machine."""

    def __init__(self, port: int):
        super().__init__(ServeOptions(), 1)
        self._only = FleetEngine("e1", None, SERVING, EngineAddress("127.0.0.1", port, "", {}, ""))

    @contextlib.asynccontextmanager
    async def run(self):
        yield

    def emptiest(self) -> FleetEngine:
        return self._only


def run_engine(pipe) -> None:
    """Send frames to everybody who connects, at a steady rate."""

    async def send(socket) -> None:
        await socket.send('{"type": "hello"}')
        async for _ in clock():
            await socket.send(bytes(FRAME_BYTES))

    async def clock():
        started = time.monotonic()
        for tick in itertools.count(1):
            await asyncio.sleep(max(0.0, started + tick / FPS - time.monotonic()))
            yield tick

    async def run() -> None:
        async with serve(send, "127.0.0.1", 0, compression=None) as server:
            pipe.send(next(iter(server.sockets)).getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())


def run_players(pipe, port: int, num_players: int) -> None:
    """Play until asked to stop, sending an input for every frame; report how many frames came after the start."""
    frames = [0] * num_players

    async def player(number: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/play", compression=None) as socket:
            async for data in socket:
                if isinstance(data, bytes):
                    frames[number] += 1
                    await socket.send('{"type": "input", "axes": [0.5, 0], "seq": 1}')

    async def run() -> None:
        tasks = [asyncio.create_task(player(number)) for number in range(num_players)]
        while min(frames) == 0:
            await asyncio.sleep(0.1)
        pipe.send("everybody plays")
        await asyncio.to_thread(pipe.recv)
        before = sum(frames)
        await asyncio.to_thread(pipe.recv)
        pipe.send(sum(frames) - before)
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def show(header: list[str], rows: list[list[str]]) -> None:
    """Print a table. Only this process imports what that takes, and not the ones that it starts."""
    from benchmark_tools import print_table

    print_table(header, rows)


def processor_seconds() -> float:
    """Return the processor time of this process and of everything that it has started."""
    process, total = psutil.Process(), 0.0
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

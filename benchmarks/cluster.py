"""Measure work on a Ray cluster of this machine: how it scales, and what the driver needs, for docs/scaling.md.

Episodes are computed, so that only conversion itself is measured. Processor time is that of the workers, of this
process and of Ray's own processes, each by itself: the latter two take some whatever the workers do.

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
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from dreamer_hf.cli import run_script
from dreamer_hf.cluster.connection import connected
from dreamer_hf.cluster.converting import prepare_conversion
from dreamer_hf.cluster.engine_replica import EngineAddress
from dreamer_hf.cluster.fleet import SERVING, Fleet, FleetEngine
from dreamer_hf.cluster.proxy import Proxy, make_proxy_app
from dreamer_hf.cluster.worker import Stage, Worker
from dreamer_hf.cluster.worker_pool import WorkerPool
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.output_folder import LocalFolder
from dreamer_hf.data.shard_task import Conversion
from dreamer_hf.serve.serve_options import ServeOptions
from dreamer_hf.serve.server import limited_server, listen

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from computed_source import ComputedSource

EPISODES_PER_SHARD = 100
FPS = 20
FRAME_BYTES = 8_000
"""Of the frames that the proxy passes on: a JPEG of 256 pixels has about this size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scaling", "memory", "proxy"))
    parser.add_argument("--episodes", type=int, default=4000, help="Episodes to convert (default: %(default)s).")
    parser.add_argument(
        "--repeats", type=int, default=2, help="Runs of each number of workers (default: %(default)s)."
    )
    parser.add_argument("--players", type=int, default=8, help="Players (default: %(default)s).")
    parser.add_argument("--seconds", type=float, default=10, help="Seconds of play (default: %(default)s).")
    args = parser.parse_args()
    if min(args.episodes, args.repeats, args.players, args.seconds) <= 0:
        raise ValueError("expected positive numbers for --episodes, --repeats, --players and --seconds.")
    if args.what == "proxy":
        measure_proxy(args.players, args.seconds)
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the workers
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        if args.what == "scaling":
            measure_scaling(Path(folder), args.episodes, args.repeats)
        else:
            measure_memory(Path(folder), args.episodes)


def measure_scaling(folder: Path, num_episodes: int, repeats: int) -> None:
    """Convert the same episodes with one worker and with two, in turns."""
    idle = _idle_share()
    runs = {workers: [] for workers in (1, 2)}
    for number in range(repeats):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            runs[workers].append(_measured_run(folder / f"{number}-{workers}", workers, num_episodes))
    rows, rates = [], {}
    for workers, parts in runs.items():
        run = Run(*(sum(values) for values in zip(*(vars(part).values() for part in parts))))
        rates[workers] = (run.frames / run.workers, run.frames / (run.workers + run.command), run.frames / run.seconds)
        columns = (run.frames, f"{run.workers:.1f}", f"{run.command:.1f}", f"{run.ray:.1f}", f"{run.seconds:.1f}")
        rows.append([str(workers), *map(str, columns), f"{rates[workers][0]:.0f}", f"{rates[workers][2]:.0f}"])
    header = ["workers", "frames", "s of the workers", "s of the command", "s of Ray", "s by the clock"]
    show([*header, "frames per s of the workers", "frames per s by the clock"], rows)
    print(f"\nRay's processes, idle: {idle:.3f} s of processor time per second.")
    one, two = rates[1], rates[2]
    print(f"Efficiency of two workers by their processor time: {two[0] / one[0]:.2f}")
    print(f"... by that of the workers and the command: {two[1] / one[1]:.2f}")
    print(f"... by the clock: {two[2] / (2 * one[2]):.2f}")
    for workers, parts in runs.items():
        spread = ", ".join(f"{part.frames / part.workers:.0f}" for part in parts)
        print(f"Runs of {workers}, frames per s of the workers: {spread}")


@dataclass
class Run:
    """What a conversion took once its workers were ready.

    Attributes:
        frames: that were converted.
        workers, command, ray: processor seconds of the workers, of this process, and of Ray's own processes.
        seconds: by the clock.
    """

    frames: int
    workers: float
    command: float
    ray: float
    seconds: float


def _measured_run(folder: Path, workers: int, num_episodes: int) -> Run:
    """Convert with some workers, and delete the result."""
    conversion = _conversion(folder, ComputedSource(num_episodes, length=40, size=64, smooth=True), 10)
    units = list(enumerate(conversion.plan()))
    with WorkerPool(Stage(prepare_conversion, (conversion,)), workers) as pool:
        while sum(member.is_ready for member in pool._members) < workers:  # One may start later.
            _use_up(pool.run(units[:8]))
        before, started = processor_seconds(), time.monotonic()
        _use_up(pool.run(units))
        seconds, after = time.monotonic() - started, processor_seconds()
        frames = pool.status.frames
    shutil.rmtree(folder)
    return Run(frames, *(after[kind] - before[kind] for kind in ("workers", "command", "ray")), seconds)


def _idle_share(seconds: float = 10.0) -> float:
    """Return the processor time that Ray takes in a second in which it has nothing to do."""
    before = processor_seconds()["ray"]
    time.sleep(seconds)
    return (processor_seconds()["ray"] - before) / seconds


def measure_memory(folder: Path, num_episodes: int) -> None:
    """Convert many small episodes, and look at the memory of this process in between."""
    conversion = _conversion(
        folder / "out", ComputedSource(num_episodes, length=1, size=8, smooth=True), EPISODES_PER_SHARD
    )
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


def processor_seconds() -> dict[str, float]:
    """Return the processor time of this process ("command") and of what it has started: "workers", and "ray"."""
    process = psutil.Process()
    totals = {"command": sum(process.cpu_times()[:2]), "workers": 0.0, "ray": 0.0}
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            is_worker = each.cmdline()[:1] and each.cmdline()[0].startswith(f"ray::{Worker.__name__}")
            totals["workers" if is_worker else "ray"] += sum(each.cpu_times()[:2])
    return totals


def _conversion(folder: Path, source: ComputedSource, episodes_per_shard: int) -> Conversion:
    folder.mkdir()
    return Conversion(source, LocalFolder(folder), ConversionOptions(episodes_per_shard=episodes_per_shard))


def _use_up(results: Iterator) -> None:
    for _ in results:
        pass


if __name__ == "__main__":
    run_script(main)

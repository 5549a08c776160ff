"""Load a server with browser-like clients and print a table: errors, lost sessions, fairness, memory.

The world is tiny, with random weights. The server runs in one process, all clients in another, on the loopback
address. Each client sends an input for every frame that it receives, as the page does.

python benchmarks/serve.py                                 32 clients for 60 seconds
python benchmarks/serve.py --hostile --clients 64          the same with 64 clients, among clients that attack
python benchmarks/serve.py --model pusht-tiny --engine torch onnx    a real world, on PyTorch and on ONNX Runtime
python benchmarks/serve.py --model pusht-tiny --engine onnx --clients 1 4 16    for several numbers of players
python benchmarks/serve.py --clients 4 --seconds 3         a short test
"""

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from benchmark_tools import describe_machine, percentile, print_table, toy_world
from dreamer_hf.cli import run_script
from dreamer_hf.start_frames import StartFrames, save_start_frames

IMAGE_SIZE = 32
FPS = 20
START_SECONDS = 300
"""Time that a busy machine may take to import and load everything."""
NUM_HALF_OPEN, NUM_VANISHING = 200, 20
NUM_ATTACKING_PLAYERS = NUM_VANISHING + 2
"""With `--hostile`: connections that send half a request; players that vanish and come back; one that floods, and one
that never reads."""


@dataclass
class Client:
    """What one client has received.

    Attributes:
        frames: number of frames that arrived during the measurement.
        missed: number of frames that were left out between two that arrived.
        latencies: seconds from an input to the first frame that shows its effect.
        errors: messages of the server, and the error that ended the connection.
        lost: whether the connection ended early.
        fps: frame rate of the world.
    """

    frames: int = 0
    missed: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: bool = False
    fps: float = FPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[32], help="Clients at the same time; several numbers in turn."
    )
    parser.add_argument("--seconds", type=float, default=60, help="Seconds of play (default: %(default)s).")
    parser.add_argument("--hostile", action="store_true", help="Add clients that flood, stall and vanish.")
    parser.add_argument(
        "--engine", nargs="+", default=["torch"], choices=("torch", "onnx"), help="One after the other."
    )
    parser.add_argument("--model", help="World to serve (default: a tiny one with random weights).")
    args = parser.parse_args()
    if min(args.clients) < 1 or not 0 < args.seconds <= 3600:
        raise ValueError("expected positive numbers for --clients and --seconds, and at most an hour.")
    print(f"{describe_machine(torch.device('cpu'))}\n")
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            save_world(Path(folder))
        for engine in args.engine:
            for number in args.clients:
                print(f"engine: {engine}; clients: {number}")
                serve_and_measure(args.model or folder, engine, number, args)


def serve_and_measure(model: str, engine: str, number: int, args: argparse.Namespace) -> None:
    """Run one server with a number of clients and print the table."""
    command = [sys.executable, "-m", "dreamer_hf.serve", "--model", model, "--port", "0", "--device", "cpu"]
    places = number + args.hostile * NUM_ATTACKING_PLAYERS
    server = subprocess.Popen(
        [*command, "--engine", engine, "--max_sessions", str(places)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        asyncio.run(measure(read_address(server), number, args.seconds, args.hostile))
    finally:
        server.terminate()
        log, _ = server.communicate(timeout=60)
    print(f"The server logged {len(log)} characters.")


def save_world(folder: Path) -> None:
    """Save a toy world with its start frames."""
    toy_world(IMAGE_SIZE, action_dim=2, fps=FPS).save_pretrained(folder)
    frames = torch.randint(0, 256, (4, 8, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    save_start_frames(folder, StartFrames(frames, torch.zeros(4, 8, 2), torch.zeros(4, 8, dtype=torch.bool)))


def read_address(server: subprocess.Popen) -> str:
    """Wait until a server prints its address.

    Raises:
        ChildProcessError: it ended first.
    """
    printed = []
    for line in server.stdout:
        printed.append(line)
        if found := re.search(r" at http://([\w.:]+)/", line):
            return found[1]
    raise ChildProcessError(f"the server did not start:\n{''.join(printed)}")


async def measure(address: str, number: int, seconds: float, hostile: bool) -> None:
    """Start the clients, measure them while they play, and print the table."""
    clients = [Client() for _ in range(number)]
    playing, over = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(play(address, client, playing, over)) for client in clients]
    await wait_for_all(clients)
    # In a third process, where the attackers cannot delay the clients that are measured.
    attackers = multiprocessing.get_context("spawn").Process(target=attack, args=(address,), daemon=True)
    if hostile:
        attackers.start()
        await asyncio.to_thread(wait_for_attackers, address, number)
    for client in clients:
        client.frames = client.missed = 0
        client.latencies.clear()
    before, start = await memory(address), time.monotonic()
    playing.set()
    await asyncio.sleep(seconds)
    over.set()
    seconds = time.monotonic() - start
    after, counted = await memory(address), await counters(address)
    if hostile:
        attackers.terminate()
    await asyncio.gather(*tasks)
    report(clients, seconds, before, after, counted, await remaining_sessions(address))


async def wait_for_all(clients: list[Client]) -> None:
    """Wait until every client plays.

    Raises:
        ConnectionError: a client could not.
    """
    deadline = time.monotonic() + START_SECONDS
    while any(client.frames < FPS for client in clients):
        if time.monotonic() > deadline or any(client.lost for client in clients):
            raise ConnectionError(f"not every client could play: {[e for c in clients for e in c.errors][:3]}")
        await asyncio.sleep(0.1)


async def play(address: str, client: Client, playing: asyncio.Event, over: asyncio.Event) -> None:
    """Run one client from connecting to leaving."""
    sent: dict[int, float] = {}
    try:
        async with connect(f"ws://{address}/play", open_timeout=START_SECONDS) as socket:
            seq, step = 0, None
            while not over.is_set():
                data = await socket.recv()
                if isinstance(data, str):
                    message = json.loads(data)
                    client.errors += [message["error"]] if message["type"] == "error" else []
                    client.fps = message.get("fps", client.fps)
                    continue
                now = time.monotonic()
                header = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
                client.frames += 1
                client.missed += 0 if step is None else header["step"] - step - 1
                step = header["step"]
                if header["seq"] in sent:
                    client.latencies.append(now - sent[header["seq"]])
                sent = {number: moment for number, moment in sent.items() if number > header["seq"]}
                seq += 1
                sent[seq] = now
                axes = [math.sin(now), math.cos(now)]
                await socket.send(json.dumps({"type": "input", "axes": axes, "seq": seq}))
    except (ConnectionClosed, OSError) as error:
        client.lost = True
        client.errors.append(str(error))


def wait_for_attackers(address: str, number: int) -> None:
    """Wait until more players have come than the clients that are measured."""
    deadline = time.monotonic() + START_SECONDS
    while read_counters(address)['dreamer_sessions_opened_total{kind="player"}'] == number:
        if time.monotonic() > deadline:
            raise ConnectionError("the attackers could not start.")
        time.sleep(0.1)


def attack(address: str) -> None:
    """Run the clients that attack until the process is terminated."""
    attacks = [hold_half_a_request] * NUM_HALF_OPEN + [vanish] * NUM_VANISHING + [flood, never_read]

    async def run() -> None:
        await asyncio.gather(*(repeat(each, address) for each in attacks))

    asyncio.run(run())


async def repeat(one_attack: Callable, address: str) -> None:
    """Attack again whenever the server has ended the attack."""
    while True:
        with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
            await one_attack(address)
        await asyncio.sleep(1)


async def hold_half_a_request(address: str) -> None:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET / HT")
        await reader.read()
    finally:
        writer.close()


async def vanish(address: str) -> None:
    socket = await connect(f"ws://{address}/play", open_timeout=START_SECONDS)
    await socket.recv()
    socket.transport.abort()


async def flood(address: str) -> None:
    async with connect(f"ws://{address}/play", open_timeout=START_SECONDS) as socket:
        while True:
            await socket.send('{"type": "reset"}')
            await asyncio.sleep(0)  # lets the other attackers act


async def never_read(address: str) -> None:
    async with connect(f"ws://{address}/play", open_timeout=START_SECONDS, max_queue=1) as socket:
        await socket.wait_closed()


async def counters(address: str) -> dict[str, float]:
    """Return the metrics of the server by name; the clients continue in the meantime."""
    return await asyncio.to_thread(read_counters, address)


def read_counters(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


async def memory(address: str) -> float:
    """Return the memory of the server's process in MiB."""
    return (await counters(address))["process_resident_memory_bytes"] / 2**20


async def remaining_sessions(address: str) -> int:
    """Return how many sessions the server still has ten seconds after all clients have left."""
    for _ in range(100):
        remaining = int((await counters(address))['dreamer_sessions{kind="player"}'])
        if remaining == 0:
            break
        await asyncio.sleep(0.1)
    return remaining


def report(clients: list[Client], seconds: float, before: float, after: float, counted: dict, remaining: int) -> None:
    frames = sorted(client.frames for client in clients)
    latencies = sorted(latency for client in clients for latency in client.latencies)
    rates = [f"{amount / seconds:.1f}" for amount in (frames[0], statistics.median(frames), frames[-1])]
    steps = counted["dreamer_step_seconds_count"]
    rows = [
        ["clients, seconds", f"{len(clients)}, {seconds:.0f}"],
        ["errors", str(sum(len(client.errors) for client in clients))],
        ["sessions lost", str(sum(client.lost for client in clients))],
        ["sessions that remain after all clients have left", str(remaining)],
        ["frames per client: least, median, most", f"{frames[0]}, {statistics.median(frames):g}, {frames[-1]}"],
        [f"frames/s per client ({clients[0].fps:g} expected)", ", ".join(rates)],
        ["frames/s of all clients together", f"{sum(frames) / seconds:.1f}"],
        ["frames missed by a client: most", str(max(client.missed for client in clients))],
        ["frames that slow readers missed", f"{counted['dreamer_frames_skipped_total']:g}"],
        ["one step of the whole batch, mean", f"{1000 * counted['dreamer_step_seconds_sum'] / steps:.1f} ms"],
        [
            "input to frame: median, 99th percentile",
            " and ".join(f"{1000 * percentile(latencies, percent):.0f} ms" for percent in (50, 99)),
        ],
        ["memory of the server at the start, at the end", f"{before:.0f} MiB, {after:.0f} MiB"],
    ]
    print_table(["served world", "measured"], rows)


if __name__ == "__main__":
    run_script(main)

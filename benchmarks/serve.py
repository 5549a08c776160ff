"""Loads a server with browser-like clients and prints a table: errors, lost sessions, fairness, memory.

The world is tiny, with random weights, in a server process of its own; the clients share one more process. All of it stays
on the loopback address. Each client sends a hand with every frame that it gets, as the page does.

python benchmarks/serve.py                                 32 clients for 60 seconds
python benchmarks/serve.py --clients 4 --seconds 3         a rehearsal
"""

import argparse
import asyncio
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dreamer_hf import (
    DreamerDynamicsConfig,
    DreamerDynamicsModel,
    DreamerTokenizerConfig,
    DreamerTokenizerModel,
    DreamerWorldModel,
)
from dreamer_hf.cli import run_script
from dreamer_hf.start_frames import StartFrames, save_start_frames
from measuring import machine, print_table

IMAGE_SIZE = 32
FPS = 20
START_SECONDS = 300  # that a busy machine may take to import and load


@dataclass
class Client:
    """What one client has met.

    Attributes:
        frames: that arrived while it was measured.
        latencies: seconds from a hand to the first frame that came of it.
        errors: sentences of the server, and how the connection ended if it did.
    """

    frames: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lost: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32, help="at the same time (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of play (default %(default)s)")
    args = parser.parse_args()
    if args.clients < 1 or not 0 < args.seconds <= 3600:
        raise ValueError("--clients and --seconds must be positive, and an hour is enough.")
    print(f"{machine(torch.device('cpu'))}\n")
    with tempfile.TemporaryDirectory() as folder:
        save_world(Path(folder))
        command = [sys.executable, "-m", "dreamer_hf.serve", "--model", folder, "--port", "0", "--device", "cpu"]
        server = subprocess.Popen(
            [*command, "--max_sessions", str(args.clients)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            asyncio.run(measure(read_address(server), args.clients, args.seconds))
        finally:
            server.terminate()
            server.communicate(timeout=60)


def save_world(folder: Path) -> None:
    """A random world of the smallest useful size, and its starts."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "context_length": 8}
    latents = {"num_latent_tokens": 4, "latent_dim": 8}
    tokenizer = DreamerTokenizerConfig(
        image_size=IMAGE_SIZE, patch_size=8, num_encoder_layers=4, num_decoder_layers=4, **latents, **width
    )
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, action_dim=2, fps=FPS, **latents, **width)
    DreamerWorldModel(
        tokenizer=DreamerTokenizerModel(tokenizer), dynamics=DreamerDynamicsModel(dynamics)
    ).save_pretrained(folder)
    frames = torch.randint(0, 256, (4, 8, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    save_start_frames(folder, StartFrames(frames, torch.zeros(4, 8, 2), torch.zeros(4, 8, dtype=torch.bool)))


def read_address(server: subprocess.Popen) -> str:
    """Waits for the line in which a server says where it is.

    Raises:
        ChildProcessError: it ended before that.
    """
    said = []
    for line in server.stdout:
        said.append(line)
        if found := re.search(r" at http://([\w.:]+)/", line):
            return found[1]
    raise ChildProcessError(f"the server did not start:\n{''.join(said)}")


async def measure(address: str, number: int, seconds: float) -> None:
    """Lets clients in, measures them at play, and prints the table."""
    clients = [Client() for _ in range(number)]
    playing, over = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(play(address, client, playing, over)) for client in clients]
    await wait_for_all(clients)
    for client in clients:
        client.frames = 0
        client.latencies.clear()
    before, begun = await memory(address), time.monotonic()
    playing.set()
    await asyncio.sleep(seconds)
    over.set()
    lasted = time.monotonic() - begun
    after, counted = await memory(address), await counters(address)
    await asyncio.gather(*tasks)
    left = await places_free(address)
    report(clients, lasted, before, after, counted, left)


async def wait_for_all(clients: list[Client]) -> None:
    """Waits until every client plays.

    Raises:
        ConnectionError: one could not.
    """
    deadline = time.monotonic() + START_SECONDS
    while any(client.frames < FPS for client in clients):
        if time.monotonic() > deadline or any(client.lost for client in clients):
            raise ConnectionError(f"not every client could play: {[e for c in clients for e in c.errors][:3]}")
        await asyncio.sleep(0.1)


async def play(address: str, client: Client, playing: asyncio.Event, over: asyncio.Event) -> None:
    """One client, from coming to going."""
    sent: dict[int, float] = {}
    try:
        async with connect(f"ws://{address}/play", open_timeout=START_SECONDS) as socket:
            seq = 0
            while not over.is_set():
                data = await socket.recv()
                if isinstance(data, str):
                    message = json.loads(data)
                    client.errors += [message["error"]] if message["type"] == "error" else []
                    continue
                now = time.monotonic()
                header = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
                client.frames += 1
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


async def counters(address: str) -> dict[str, float]:
    """What the server counts, by name; the clients go on meanwhile."""
    return await asyncio.to_thread(read_counters, address)


def read_counters(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


async def memory(address: str) -> float:
    """MiB of the server's process."""
    return (await counters(address))["process_resident_memory_bytes"] / 2**20


async def places_free(address: str) -> int:
    """Sessions that the server still holds, seconds after all clients have gone."""
    for _ in range(100):
        held = int((await counters(address))['dreamer_sessions{kind="player"}'])
        if held == 0:
            break
        await asyncio.sleep(0.1)
    return held


def report(clients: list[Client], lasted: float, before: float, after: float, counted: dict, left: int) -> None:
    frames = sorted(client.frames for client in clients)
    latencies = sorted(latency for client in clients for latency in client.latencies)
    rates = [f"{amount / lasted:.1f}" for amount in (frames[0], statistics.median(frames), frames[-1])]
    steps = counted["dreamer_step_seconds_count"]
    rows = [
        ["clients, seconds", f"{len(clients)}, {lasted:.0f}"],
        ["errors", str(sum(len(client.errors) for client in clients))],
        ["sessions lost", str(sum(client.lost for client in clients))],
        ["sessions still held after all have left", str(left)],
        ["frames per client: least, median, most", f"{frames[0]}, {statistics.median(frames):g}, {frames[-1]}"],
        [f"frames/s per client ({FPS} wanted)", ", ".join(rates)],
        ["frames that slow readers missed", f"{counted['dreamer_frames_skipped_total']:g}"],
        ["one step of the whole batch, mean", f"{1000 * counted['dreamer_step_seconds_sum'] / steps:.1f} ms"],
        [
            "hand to picture: median, 99th percentile",
            " and ".join(f"{1000 * percentile(latencies, p):.0f} ms" for p in (50, 99)),
        ],
        ["server's memory at the start, at the end", f"{before:.0f} MiB, {after:.0f} MiB"],
    ]
    print_table(["served world, tiny", "measured"], rows)


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[round(percent / 100 * (len(ordered) - 1))] if ordered else math.nan


if __name__ == "__main__":
    run_script(main)

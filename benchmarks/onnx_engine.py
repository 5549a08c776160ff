"""Measure dreams on ONNX Runtime against PyTorch in one run: frames/s, time to the first frame, and memory.

    python benchmarks/onnx_engine.py                        the shipped world, one thread and two
    python benchmarks/onnx_engine.py --model 10m            a world of 10M random parameters
    python benchmarks/onnx_engine.py --busy                 while another process keeps one core busy
    python benchmarks/onnx_engine.py --quick                a test at toy size: its figures mean nothing

The plain models always take four denoising passes per frame, the others as many as the world: compare them for worlds
of four passes only. The engines take turns, frame by frame, so that other work on the machine slows all of them alike.
Time to the first frame and memory are those of new processes.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmark_tools import (
    Timings,
    describe_machine,
    print_table,
    speedup,
    time_interleaved,
    toy_world,
)
from dreamer_hf.cli import run_script
from dreamer_hf.loading import load_world
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.start_frames import StartFrames, load_start_frames, save_start_frames
from rollout import build_world, plain_step

CONTEXT_FRAMES = 8
CPU = torch.device("cpu")
EAGER = "PyTorch, eager"
FIRST_FRAME = """
import sys
from dreamer_hf.onnx.export_cache import load_or_export
world = load_or_export(sys.argv[1], threads=int(sys.argv[2]))
rollout = world.start_rollout(world.starts[0])
rollout.step(world.space.rest[None])
print("first frame", flush=True)
for _ in range(20):
    rollout.step(world.space.rest[None])
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pusht-tiny", help="Shipped world, folder, or 10m (default: %(default)s).")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="Numbers of CPU threads.")
    parser.add_argument("--dreams", type=int, nargs="+", default=[1], help="Numbers of dreams in one batch.")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="Kinds of weights of the export.")
    parser.add_argument("--rounds", type=int, default=150, help="Frames of each engine (default: %(default)s).")
    parser.add_argument("--busy", action="store_true", help="Keep one core busy meanwhile.")
    parser.add_argument("--quick", action="store_true", help="Toy size and few frames, to test this script.")
    args = parser.parse_args()
    rounds = 4 if args.quick else args.rounds
    print(f"{describe_machine(CPU)}; {rounds} frames of each engine, interleaved; busy core: {args.busy}.\n")
    world, starts = make_world(args)
    busy = multiprocessing.get_context("spawn").Process(target=keep_busy, daemon=True)
    with tempfile.TemporaryDirectory() as folder:
        exports = write_exports(world, starts, Path(folder), args.dtypes)
        if args.busy:
            busy.start()
        for threads in args.threads:
            for dreams in args.dreams:
                measure(world, starts, exports, threads, dreams, rounds)
        measure_first_frames(world, starts, Path(folder), args.threads[0])
    if args.busy:
        busy.terminate()


def make_world(args):
    """Return a world and its start frames; random ones where the world has none."""
    if args.model != "10m" and not args.quick:
        return load_world(args.model, "cpu"), load_start_frames(args.model)
    torch.manual_seed(0)
    world = toy_world(16, action_dim=2) if args.quick else build_world(CPU, quick=False)
    for parameter in world.parameters():
        if not parameter.any():  # errors of projections to zero would be zero, too
            torch.nn.init.normal_(parameter, std=0.02)
    config = world.config
    frames = torch.randint(0, 256, (1, CONTEXT_FRAMES, 3, *config.tokenizer_config.frame_size), dtype=torch.uint8)
    actions = torch.zeros(1, CONTEXT_FRAMES, config.dynamics_config.action_dim)
    return world, StartFrames(frames, actions, torch.ones(1, CONTEXT_FRAMES, dtype=torch.bool))


def write_exports(world, starts: StartFrames, folder: Path, dtypes: list[str]) -> dict[str, Path]:
    """Export the world with each kind of weights and print sizes and errors."""
    rows, paths = [], {}
    for dtype in dtypes:
        paths[dtype], start = folder / dtype, time.perf_counter()
        check = export_onnx(world, paths[dtype], dtype, starts, max_error=1.0).check
        size = sum(file.stat().st_size for file in paths[dtype].glob("*.onnx")) / 1e6
        errors = [f"{check[name]:.1e}" for name in ("max_latent_error", "max_pixel_error")]
        rows.append([dtype, f"{size:.1f}", *errors, f"{time.perf_counter() - start:.1f}"])
    print_table(["weights", "graphs, MB", "largest error, latents", "largest error, pixels", "export, s"], rows)
    return paths


def measure(world, starts: StartFrames, exports: dict[str, Path], threads: int, dreams: int, rounds: int) -> None:
    """Time all engines with a number of threads and of dreams, and print one table."""
    torch.set_num_threads(threads)
    chosen = starts.select([index % len(starts) for index in range(dreams)])
    actions = np.zeros((dreams, world.config.dynamics_config.action_dim), np.float32)
    timings = time_interleaved(make_engines(world, chosen, exports, threads, actions), rounds, CPU, warm_up=4)
    eager = timings[EAGER]
    print(f"{threads} thread(s), {dreams} dream(s):\n")
    rows = [[name, *columns(timing, dreams), speedup(eager, timing, CPU)] for name, timing in timings.items()]
    print_table(["engine", "frames/s", "ms per frame: median", "99th percentile", "against eager"], rows)


def columns(timing: Timings, dreams: int) -> list[str]:
    return [timing.rate(dreams), f"{1000 * timing.median:.1f}", f"{1000 * timing.percentile(99):.1f}"]


def make_engines(world, starts: StartFrames, exports: dict[str, Path], threads: int, actions: np.ndarray):
    """Return for each engine a function of the round's number that dreams one frame in every row."""
    sources = lambda: [SeededNoise(row) for row in range(len(starts))]  # noqa: E731
    tensor = torch.from_numpy(actions)
    plain = plain_step(world, starts.pixel_values_videos / 255, torch.float32)
    rollout = world.start_rollout(starts, generator=sources())
    engines: dict[str, Callable] = {"plain PyTorch": lambda _: plain(tensor), EAGER: lambda _: rollout.step(tensor)}
    for dtype, folder in exports.items():
        frames = starts.pixel_values_videos.numpy()
        dream = OnnxWorld.from_pretrained(folder, threads).start_rollout(frames, generator=sources())
        engines[f"ONNX Runtime, {dtype}"] = lambda _, dream=dream: dream.step(actions)
    return engines


def keep_busy() -> None:
    """Compute until the process is ended."""
    while True:
        sum(range(10**6))


def measure_first_frames(world, starts: StartFrames, folder: Path, threads: int) -> None:
    """Print what new processes need to the first frame and their memory, with and without an export in the cache."""
    saved, rows = folder / "world", []
    world.save_pretrained(saved)
    save_start_frames(saved, starts)
    environment = {**os.environ, "HF_HOME": str(folder / "home")}
    for kind in ("the first time, with the export", "from then on"):
        start = time.perf_counter()
        command = [sys.executable, "-c", FIRST_FRAME, str(saved), str(threads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            process.stdout.readline()
            seconds = time.perf_counter() - start
            rows.append([kind, f"{seconds:.1f}", f"{float(process.stdout.readline()):.0f}"])
    print_table(["a new process", "first frame after, s", "resident, MB"], rows)


if __name__ == "__main__":
    run_script(main)

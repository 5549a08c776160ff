"""How many frames per second PyTorch and ONNX Runtime dream on the CPU, for different numbers of rows, as ratios.

The two engines take turns within every measurement, so that both meet the same load of other processes.

python benchmarks/engines.py                               the shipped world, 1, 4 and 16 rows, two threads
python benchmarks/engines.py --rows 1 --steps 4            a short test
"""

import argparse
import statistics
import time

import torch

from benchmark_tools import describe_machine
from dreamer_hf.cli import run_script
from dreamer_hf.dreams import Dream, Dreams
from dreamer_hf.engines.opening import open_world
from dreamer_hf.options import WorldOptions

ROUND = 4
"""Steps of an engine before it is the other one's turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pusht-tiny", help="World (default: %(default)s).")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1, 4, 16], help="Numbers of rows (default: %(default)s)."
    )
    parser.add_argument("--steps", type=int, default=60, help="Steps of each engine (default: %(default)s).")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each engine (default: %(default)s).")
    args = parser.parse_args()
    if min(*args.rows, args.steps, args.threads) < 1:
        raise ValueError("expected positive numbers for --rows, --steps and --threads.")
    torch.set_num_threads(args.threads)
    print(f"{describe_machine(torch.device('cpu'))}; {args.threads} thread(s)\n")
    engines = {name: open_dreams(args.model, name, args.threads) for name in ("torch", "onnx")}
    print("| rows | PyTorch, frames/s | ONNX Runtime, frames/s | ratio |\n| ---: | ---: | ---: | ---: |")
    for rows in args.rows:
        seconds = measure(engines, rows, args.steps)
        ours, theirs = (rows / statistics.median(seconds[name]) for name in ("onnx", "torch"))
        print(f"| {rows} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |", flush=True)


def open_dreams(model: str, engine: str, threads: int) -> Dreams:
    """Return the dreams of a world on an engine."""
    world, starts, _ = open_world(model, WorldOptions(model, engine=engine, device="cpu", threads=threads))
    return Dreams(world, starts)


def measure(engines: dict[str, Dreams], rows: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of single steps of each engine, for a number of rows."""
    members = {
        name: dreams.begin([row % len(dreams.starts) for row in range(rows)], range(rows))
        for name, dreams in engines.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for name, dreams in engines.items():
        step(dreams, members[name], ROUND)  # warm-up
    while len(seconds["onnx"]) < steps:
        for name, dreams in engines.items():
            seconds[name] += step(dreams, members[name], ROUND)
    return seconds


def step(dreams: Dreams, members: list[Dream], count: int) -> list[float]:
    """Dream some frames; return the seconds of each."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        dreams.step(members, [dreams.space.rest] * len(members))
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    run_script(main)

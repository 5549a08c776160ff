"""Dream for very long in one rollout: are steps as fast, and is the process as small, at the end as at the start?

The world is a toy with random weights, so that 100,000 steps take minutes. For worlds of any size, neither time nor
memory of a step depends on how many came before. Prints a table with ten segments of the rollout, and exits with
status 1 if an output was not finite.

python benchmarks/long_rollout.py                   100,000 steps, eager
python benchmarks/long_rollout.py --compile         the same with compiled passes
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch
from tqdm import tqdm

from benchmark_tools import describe_machine, print_table, toy_world
from dreamer_hf.cli import run_script
from dreamer_hf.rollout import DreamerRollout

SEGMENTS, CONTEXT_FRAMES, IMAGE_SIZE = 10, 2, 16


@dataclass
class Segment:
    """Successive steps in numbers, so that the measurement itself takes no memory that grows.

    Attributes:
        median, slow: seconds per step, the median and the 99th percentile.
        memory: resident bytes of the process after them.
        finite: whether all outputs were finite.
    """

    median: float
    slow: float
    memory: int
    finite: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="Number of steps (default: %(default)s).")
    parser.add_argument("--compile", action="store_true", help="Compile the passes first (a minute or more).")
    args = parser.parse_args()
    if args.steps < 2 * SEGMENTS:
        raise ValueError(f"expected at least {2 * SEGMENTS} for --steps, got {args.steps}.")
    print(f"{describe_machine(torch.device('cpu'))}\n")
    frames = torch.rand(1, CONTEXT_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)
    rollout = toy_world(IMAGE_SIZE).start_rollout(frames, generator=torch.Generator().manual_seed(0))
    if args.compile:
        rollout.compile()
    segments: list[Segment] = []
    header = ["steps so far", "ms per step, median", "99th percentile", "memory, MiB", "all finite"]
    print_table(header, rows(rollout, args.steps // SEGMENTS, segments))
    first, last = segments[0], segments[-1]
    slower, growth = last.median / first.median, (last.memory - first.memory) / 2**20
    print(f"Last segment against the first: {slower:.2f}x the time per step, {growth:+.1f} MiB of memory.")
    if not all(segment.finite for segment in segments):
        sys.exit(1)


def rows(rollout: DreamerRollout, steps: int, segments: list[Segment]) -> Iterator[list[str]]:
    """Dream segment after segment: append each to `segments`, and yield its row of the table."""
    for number in range(SEGMENTS):
        segment = dream(rollout, steps, number)
        segments.append(segment)
        times = [f"{seconds * 1e3:.3f}" for seconds in (segment.median, segment.slow)]
        finite = "yes" if segment.finite else "NO"
        yield [f"{rollout.frame_index - CONTEXT_FRAMES:,}", *times, f"{segment.memory / 2**20:.1f}", finite]


def dream(rollout: DreamerRollout, steps: int, number: int) -> Segment:
    seconds, finite = [], torch.tensor(True)
    for _ in tqdm(range(steps), desc=f"segment {number + 1} of {SEGMENTS}", leave=False):
        action = torch.randn(1, rollout.world.config.dynamics_config.action_dim)
        start = time.perf_counter()
        output = rollout.step(action)
        seconds.append(time.perf_counter() - start)
        finite &= output.pixel_values.isfinite().all() & output.latents.isfinite().all()
    slow = statistics.quantiles(seconds, n=100)[98]
    return Segment(statistics.median(seconds), slow, psutil.Process().memory_info().rss, bool(finite))


if __name__ == "__main__":
    run_script(main)

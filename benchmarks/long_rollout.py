"""Dreams for very long in one rollout: is a step as fast, and the process as small, at the end as at the start?

The world is a toy with random weights, so that 100,000 steps take minutes; neither time nor memory of a step depends on how
many came before, whatever the size. Prints a table by stretches of the rollout, and exits with status 1 if an output was
not finite.

python benchmarks/long_rollout.py                   100,000 steps, eager
python benchmarks/long_rollout.py --compile         the same with compiled passes
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

import psutil
import torch
from torch import nn
from tqdm import tqdm

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from dreamer_hf.cli import run_script
from dreamer_hf.rollout import DreamerRollout
from measuring import machine

TOY = {"hidden_size": 32, "num_attention_heads": 2, "context_length": 8}
LATENTS = {"num_latent_tokens": 4, "latent_dim": 8}
STRETCHES, CONTEXT_FRAMES = 10, 2


@dataclass
class Stretch:
    """Some steps in a row, in numbers, so that the measuring itself takes no memory that grows.

    Attributes:
        median, slow: seconds of a step, the median and the 99th percentile.
        memory: resident bytes of the process after them.
        finite: whether all outputs were.
    """

    median: float
    slow: float
    memory: int
    finite: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="in all (default %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the passes first (a minute or more)")
    args = parser.parse_args()
    if args.steps < 2 * STRETCHES:
        raise ValueError(f"--steps {args.steps} are too few: give at least {2 * STRETCHES}.")
    print(f"{machine(torch.device('cpu'))}\n")
    rollout = start_rollout()
    if args.compile:
        rollout.compile()
    print_rows(["steps so far", "ms a step, median", "99 %", "memory, MiB", "all finite"], ["---"] * 5)
    stretches = []
    for number in range(STRETCHES):
        stretches.append(dream(rollout, args.steps // STRETCHES, number))
        print_rows(as_row(stretches[-1], rollout.frame_index - CONTEXT_FRAMES))
    compare(stretches[0], stretches[-1])
    if not all(stretch.finite for stretch in stretches):
        sys.exit(1)


def start_rollout() -> DreamerRollout:
    torch.manual_seed(0)
    tokenizer = DreamerTokenizerConfig(
        image_size=16, patch_size=8, num_encoder_layers=4, num_decoder_layers=4, **LATENTS, **TOY
    )
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, **LATENTS, **TOY)
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics)).eval()
    for parameter in world.parameters():
        if not parameter.any():  # what starts at zero would keep the past, and the actions, out of every frame
            nn.init.normal_(parameter, std=0.1)
    return world.start_rollout(torch.rand(1, CONTEXT_FRAMES, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def dream(rollout: DreamerRollout, steps: int, number: int) -> Stretch:
    seconds, finite = [], torch.tensor(True)
    for _ in tqdm(range(steps), desc=f"stretch {number + 1} of {STRETCHES}", leave=False):
        action = torch.randn(1, rollout.world.config.dynamics_config.action_dim)
        begun = time.perf_counter()
        output = rollout.step(action)
        seconds.append(time.perf_counter() - begun)
        finite &= output.pixel_values.isfinite().all() & output.latents.isfinite().all()
    slow = statistics.quantiles(seconds, n=100)[98]
    return Stretch(statistics.median(seconds), slow, psutil.Process().memory_info().rss, bool(finite))


def as_row(stretch: Stretch, done: int) -> list[str]:
    times = [f"{seconds * 1e3:.3f}" for seconds in (stretch.median, stretch.slow)]
    return [f"{done:,}", *times, f"{stretch.memory / 2**20:.1f}", "yes" if stretch.finite else "NO"]


def print_rows(*rows: list[str]) -> None:
    """Rows of a table as they come: this takes long."""
    print("\n".join(f"| {' | '.join(row)} |" for row in rows), flush=True)


def compare(first: Stretch, last: Stretch) -> None:
    slower = last.median / first.median
    growth = (last.memory - first.memory) / 2**20
    print(f"\nLast stretch against the first: {slower:.2f}x the time a step, {growth:+.1f} MiB of memory.")


if __name__ == "__main__":
    run_script(main)

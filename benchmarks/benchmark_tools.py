"""What the benchmarks share: interleaved timing, the limits of the machine, small worlds, and tables."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from dreamer_hf.evaluation.tables import table_lines

REFERENCE = Path(__file__).parents[1] / "reference"
"""Folder of the plain PyTorch models, whose numbers the tests compare with those of the library."""

TOKENIZER_10M = {
    "image_size": 64,
    "patch_size": 8,
    "hidden_size": 192,
    "num_attention_heads": 6,
    "num_encoder_layers": 4,
    "num_decoder_layers": 4,
    "num_latent_tokens": 16,
    "latent_dim": 16,
}
DYNAMICS_10M = {"hidden_size": 256, "num_attention_heads": 8, "num_hidden_layers": 8, "num_register_tokens": 4}
"""Together a world of about 10M parameters: what a CPU can train and play."""


def import_plain_models():
    """Return the module with the plain PyTorch models."""
    if str(REFERENCE) not in sys.path:
        sys.path.insert(0, str(REFERENCE))
    import plain_dreamer4

    return plain_dreamer4


def toy_world(image_size: int, **dynamics_fields) -> DreamerWorldModel:
    """Return a world of the smallest useful size, with random weights."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "context_length": 8}
    latents = {"num_latent_tokens": 4, "latent_dim": 8}
    tokenizer = DreamerTokenizerConfig(
        image_size=image_size, patch_size=8, num_encoder_layers=4, num_decoder_layers=4, **latents, **width
    )
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, **latents, **width, **dynamics_fields)
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics)).eval()
    for parameter in world.parameters():
        if (
            not parameter.any()
        ):  # Parameters that start at zero would keep the past, and the actions, out of all frames.
            nn.init.normal_(parameter, std=0.1)
    return world


@dataclass
class Timings:
    """Seconds of each run of a variant: wall-clock time, and CPU time of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median wall-clock seconds of a run."""
        return statistics.median(self.wall)

    def percentile(self, percent: int) -> float:
        """Return a percentile of the wall-clock seconds of a run."""
        return percentile(sorted(self.wall), percent)

    def rate(self, amount: float) -> str:
        """Return the median amount per second, with its quartiles in brackets."""
        slow, fast = self.percentile(75), self.percentile(25)
        return f"{amount / self.median:.4g} ({amount / slow:.4g} to {amount / fast:.4g})"


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return a percentile of sorted values (the nearest value); NaN of none."""
    return ordered[round(percent / 100 * (len(ordered) - 1))] if ordered else float("nan")


def time_interleaved(
    variants: dict[str, Callable[[int], None]], rounds: int, device: torch.device, warm_up: int = 2
) -> dict[str, Timings]:
    """Call each variant once per round, so that other work on the machine slows all of them equally.

    Args:
        variants: functions of the round's number by name.
        rounds: number of rounds that are timed.
        device: device that is synchronized around each call.
        warm_up: number of rounds before them, with number 0.
    """
    timings = {name: Timings() for name in variants}
    for number in tqdm(range(-warm_up, rounds), desc=", ".join(variants), leave=False):
        for name, variant in variants.items():
            synchronize(device)
            wall, cpu = time.perf_counter(), time.process_time()
            variant(max(number, 0))
            synchronize(device)
            if number >= 0:
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].cpu.append(time.process_time() - cpu)
    return timings


def speedup(slow: Timings, fast: Timings, device: torch.device) -> str:
    """Return how many times as fast one variant is, by wall-clock time and, on a CPU, by CPU time, too."""
    by_wall = f"{slow.median / fast.median:.2f}x"
    if device.type != "cpu":
        return by_wall
    return f"{by_wall} ({statistics.median(slow.cpu) / statistics.median(fast.cpu):.2f}x CPU time)"


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to finish its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(work: Callable[[], None]) -> int:
    """Return the number of floating-point operations of the matrix products and the attention in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Return the floating-point operations per second of a large matrix product, best of ten."""
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: left @ right, device)


def copy_bandwidth(device: torch.device, num_bytes: int = 2**28) -> float:
    """Return the bytes per second, read and written, of copying memory larger than any cache, best of ten."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _best(lambda: target.copy_(source), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    timings = time_interleaved({"measuring the machine": lambda _: work()}, 10, device)
    return min(timings["measuring the machine"].wall)


def describe_machine(device: torch.device) -> str:
    """Return one line about the machine that the figures come from."""
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    cpu = f"{torch.get_num_threads()} of {os.cpu_count()} cores ({platform.machine()}){load}"
    gpu = torch.cuda.get_device_name(device) + ", " if device.type == "cuda" else ""
    return f"{gpu}{cpu}, PyTorch {torch.__version__}"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table, each row immediately: an interrupted run keeps its results."""
    for line in table_lines(header, rows):
        print(line, flush=True)
    print(flush=True)

"""What the speed benchmarks share: timing several forms in turns, the machine's own limits, tables in Markdown."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

REFERENCE = Path(__file__).parents[1] / "reference"
"""Where the plain forms live: tests hold their numbers against ours."""

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
"""Together a world of about 10M parameters: what a processor can train and play."""


def import_plain_forms():
    """The module with the plain forms of the models."""
    sys.path.insert(0, str(REFERENCE))
    import plain_dreamer4

    return plain_dreamer4


@dataclass
class Timings:
    """Seconds of every run of one form, by the clock and of processor time (all threads together)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.wall)
        return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]

    def rate(self, amount: float) -> str:
        """Median amount a second, with the quartiles as its spread."""
        slow, fast = self.percentile(75), self.percentile(25)
        return f"{amount / self.median:.4g} ({amount / slow:.4g} to {amount / fast:.4g})"


def in_turns(
    forms: dict[str, Callable[[int], None]], rounds: int, device: torch.device, warm_up: int = 2
) -> dict[str, Timings]:
    """Calls every form once a round with the round's number, so that a busy moment of the machine meets all of them."""
    timings = {name: Timings() for name in forms}
    for number in tqdm(range(-warm_up, rounds), desc=", ".join(forms), leave=False):
        for name, form in forms.items():
            synchronize(device)
            wall, processor = time.perf_counter(), time.process_time()
            form(max(number, 0))
            synchronize(device)
            if number >= 0:
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].processor.append(time.process_time() - processor)
    return timings


def ratio(slow: Timings, fast: Timings, device: torch.device) -> str:
    """How many times as fast, by the clock; by processor time too where the processor does the work."""
    by_clock = f"{slow.median / fast.median:.2f}x"
    if device.type != "cpu":
        return by_clock
    return f"{by_clock} ({statistics.median(slow.processor) / statistics.median(fast.processor):.2f}x processor time)"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(work: Callable[[], None]) -> int:
    """Floating-point operations of the matrix products and the attention in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Floating-point operations a second of a large matrix product, best of ten."""
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: left @ right, device)


def copy_bandwidth(device: torch.device, num_bytes: int = 2**28) -> float:
    """Bytes a second, read and written together, of copying memory larger than any cache, best of ten."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _best(lambda: target.copy_(source), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    timings = in_turns({"measuring the machine": lambda _: work()}, 10, device)
    return min(timings["measuring the machine"].wall)


def machine(device: torch.device) -> str:
    """One line about where the figures come from."""
    load = f", load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else ""
    cpu = f"{torch.get_num_threads()} of {os.cpu_count()} cores ({platform.machine()}){load}"
    gpu = torch.cuda.get_device_name(device) + ", " if device.type == "cuda" else ""
    return f"{gpu}{cpu}, PyTorch {torch.__version__}"


def print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    """Prints a Markdown table, each row as soon as it is there: what was measured survives an interruption."""
    for line in chain([header, ["---"] * len(header)], rows):
        print(f"| {' | '.join(line)} |", flush=True)
    print(flush=True)

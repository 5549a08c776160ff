"""How many CPU threads a model should use, found by a short measurement.

PyTorch, and ONNX Runtime like it, starts as many threads as there are cores. Small models spend most of a pass
between operations, so that further threads gain little; and while another program keeps a core busy, they lose nearly
everything, because every operation waits for the thread that shares that core. `docs/speed.md` has the figures.

    choice = choose_threads(step)        # calls `step()` some times, and keeps the number that it chooses
    print(choice)                        # "1 of 2 CPU threads (26 ms per step; 22 ms with 2)"
"""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

WORTHWHILE = 1.4
"""Speedup for which it is worth doubling the number of threads."""
MAX_CALLS = 5
MAX_SECONDS = 1.0
"""Limits of the measurement of one number of threads, after a first call."""


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads, and why it was chosen.

    Attributes:
        threads: the number of threads that are now used.
        available: the number that was used before, by default that of the cores.
        seconds: median seconds per call for the numbers that were measured; empty if nothing was.
    """

    threads: int
    available: int
    seconds: dict[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.threads} of {self.available} CPU threads"
        if not self.seconds:
            return text
        others = [
            f"{1e3 * value:.0f} ms with {count}" for count, value in self.seconds.items() if count != self.threads
        ]
        return f"{text} ({'; '.join([f'{1e3 * self.seconds[self.threads]:.0f} ms per step', *others])})"


def choose_threads(work: Callable[[], object], threads: int | None = None) -> ThreadChoice:
    """Set the number of CPU threads of PyTorch to what suits some repeated work.

    Starts with one thread and doubles their number as long as that makes the work at least 1.4 times as fast. Takes at
    most a few seconds; nothing is measured if PyTorch is limited to one thread, for example by `OMP_NUM_THREADS=1`.

    Args:
        work: one unit of the work, such as a step of a dream. It is called about ten times.
        threads: a number to set without measuring.

    Raises:
        ValueError: `threads` is not positive.
    """
    import torch

    return choose_threads_for(work, torch.get_num_threads(), torch.set_num_threads, threads)


def choose_threads_for(
    work: Callable[[], object], available: int, set_threads: Callable[[int], None], threads: int | None = None
) -> ThreadChoice:
    """Do what `choose_threads` does, for any library.

    Args:
        work: as in `choose_threads`.
        available: the most threads to try.
        set_threads: sets the number of threads of the library.
        threads: as in `choose_threads`.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"expected a positive int for --threads, got {threads}.")
        set_threads(threads)
        return ThreadChoice(threads, max(threads, available))
    counts = [2**n for n in range(available.bit_length()) if 2**n < available] + [available]
    chosen, seconds = counts[0], {}
    for count in counts if available > 1 else ():
        set_threads(count)
        seconds[count] = _seconds_per_call(work)
        if seconds[chosen] < WORTHWHILE ** math.log2(count / chosen) * seconds[count]:
            break
        chosen = count
    set_threads(chosen)
    return ThreadChoice(chosen, available, seconds)


def wait_without_spinning() -> None:
    """Make threads that wait for others give up their core, instead of checking for about a millisecond.

    Where another program needs that core, this makes several threads many times as fast. Call it before PyTorch is
    imported, which reads the environment variable. A value that the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _seconds_per_call(work: Callable[[], object]) -> float:
    work()  # the first call with another number of threads starts them
    times: list[float] = []
    while len(times) < MAX_CALLS and sum(times) < MAX_SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


__all__ = ["ThreadChoice", "choose_threads", "choose_threads_for", "wait_without_spinning"]

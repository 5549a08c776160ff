"""Damages files and judges what their reader makes of them. `python tests/fuzz/damage.py` is `make fuzz`.

Environment variables: FUZZ_SEED (default: a random one), FUZZ_TRIES for each format (default 400), FUZZ_FORMATS (parts
of names, separated by commas; default: all).
"""

import faulthandler
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from huggingface_hub.errors import StrictDataclassError

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.formats import FORMATS, Format, copy

LIMIT_SECONDS = 10
MEMORY_BYTES = 24 << 30
"""Address space of one process: damage must not make a reader ask for more."""
VERDICTS = ("refused clearly", "right", "undetectable", "wrong")
ALLOWED = (ValueError, OSError, StrictDataclassError)


class Hang(BaseException):
    """A reader took more than `LIMIT_SECONDS`."""


@contextmanager
def time_limit(seconds: int = LIMIT_SECONDS):
    """Raise `Hang` after `seconds`; end the process if the reader, in C, does not notice."""

    def stop(*_):
        raise Hang(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def judge(form: Format, folder: Path, intact: object) -> tuple[str, str]:
    """Read damaged files. Return a verdict, and the reader's message or what is wrong."""
    try:
        with time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = form.read(folder)
            if value == intact or form.is_right(folder, value):
                return "right", ""
            return ("wrong", "another value, silently") if form.protected else ("undetectable", "")
    except ALLOWED as error:
        message = str(error)
        if "\n" in message or len(message) > 1500 or not message:
            return "wrong", f"not one sentence: {type(error).__name__}: {message[:300]!r}"
        return "refused clearly", message
    except (Hang, Exception) as error:
        where = traceback.extract_tb(error.__traceback__)
        place = next(
            (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where) if "dreamer_hf" in f.filename), ""
        )
        return "wrong", f"{type(error).__name__} at {place}: {str(error)[:200]!r}"


def fuzz(form: Format, examples: Path, scratch: Path, seed: int, tries: int, is_over=lambda: False):
    """Damage a format `tries` times, or until `is_over()`. Return the verdicts, and a line for each wrong one."""
    logging.disable(logging.WARNING)
    example, verdicts, wrong = form.example(examples), Counter(), []
    intact = form.read(example)
    names = sorted(path.relative_to(example) for path in example.glob(form.pattern) if path.is_file())
    try:
        for number in range(tries):
            if is_over():
                break
            rng = np.random.default_rng([seed, zlib.crc32(form.name.encode()), number])
            mutation = form.mutations[rng.integers(len(form.mutations))]
            copy(example, scratch)
            name = names[rng.integers(len(names))]
            mutation(scratch / name, rng)
            verdict, message = judge(form, scratch, intact)
            verdicts[verdict] += 1
            if verdict == "wrong":
                wrong.append(f"{form.name}, seed {seed}, try {number} ({mutation.__name__} of {name}): {message}")
    finally:
        logging.disable(logging.NOTSET)
    return verdicts, wrong


def table(results: dict[str, Counter]) -> str:
    """Return the verdicts of each format as a Markdown table."""
    rows = [
        (name, sum(counts.values()), *(counts[verdict] for verdict in VERDICTS)) for name, counts in results.items()
    ]
    rows.append(("**all**", *(sum(row[i] for row in rows) for i in range(1, 2 + len(VERDICTS)))))
    lines = [("class", "tries", *VERDICTS), ("---", *["---:"] * (1 + len(VERDICTS))), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _worker(form: Format, folder: Path, seed: int, tries: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        counts, wrong = fuzz(form, folder, folder / "damaged", seed, tries)
    (folder / "results.json").write_text(json.dumps([counts, wrong]))


def main() -> int:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**31))
    tries = int(os.environ.get("FUZZ_TRIES") or 400)
    wanted = os.environ.get("FUZZ_FORMATS", "").lower().split(",")
    print(f"FUZZ_SEED={seed} FUZZ_TRIES={tries}", flush=True)
    totals = {}
    context = multiprocessing.get_context("fork")  # A crash of the interpreter ends only the process of one format.
    with tempfile.TemporaryDirectory(prefix="dreamer_hf_fuzz_") as folder:
        for form in FORMATS:
            if not any(part in form.name.lower() for part in wanted):
                continue
            form.example(Path(folder))
            worker = context.Process(target=_worker, args=(form, Path(folder), seed, tries))
            worker.start()
            worker.join()
            if worker.exitcode:
                counts, wrong = {"wrong": tries}, [f"{form.name}: the process ended with {worker.exitcode}"]
            else:
                counts, wrong = json.loads((Path(folder) / "results.json").read_text())
            counts = Counter(counts)
            totals[form.name] = counts
            print("\n".join([f"{form.name}: {dict(counts)}", *wrong]), flush=True)
    print(f"\n{table(totals)}")
    return int(any(counts["wrong"] for counts in totals.values()))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())

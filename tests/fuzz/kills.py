"""Kills conversions and training runs at random moments, resumes them, and compares them with uninterrupted ones.

`python tests/fuzz/kills.py 20 SEED` kills each kind of run 20 times. Shards must be equal byte for byte, and
weights, their average, the optimizer's state and the losses bit for bit.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import PLAN_NAME, convert
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from tiny import (
    TINY_DYNAMICS,
    TINY_REPO_ID,
    TINY_TOKENIZER,
    loss_curve,
    train,
    write_moving_square,
    write_tiny_lerobot,
)

FORK = multiprocessing.get_context("fork")
"""Forked processes start at once, so that kills fall into the work and not into the import of PyTorch."""


@dataclass(frozen=True)
class Work:
    """Something to kill.

    Attributes:
        name: how the table calls it.
        run: does the work in the given folder, or continues it there.
        is_done: whether the folder is finished, so that there is nothing to continue.
        result: everything that must not depend on kills, given a finished folder.
    """

    name: str
    run: Callable[[Path], object]
    is_done: Callable[[Path], bool]
    result: Callable[[Path], dict]


def conversion(inputs: Path) -> Work:
    """Six episodes of video into six shards."""
    _in_child(lambda: write_tiny_lerobot(inputs / "lerobot")).join()

    def run(folder: Path) -> None:
        source, options = LeRobotSource(inputs / "lerobot", TINY_REPO_ID), ConversionOptions(episodes_per_shard=1)
        with suppress(FileExistsError):  # It was killed when all was written, and only had to be tidied up.
            convert(source, folder, options, JobOptions(resume=True))

    def result(folder: Path) -> dict:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def is_done(folder: Path) -> bool:
        return (folder / "metadata.json").exists() and not (folder / PLAN_NAME).exists()

    return Work("conversion", run, is_done, result)


def training(kind: str, inputs: Path) -> Work:
    """A tokenizer run of 16 steps, or a dynamics run of 8, with a checkpoint after every other one."""
    if not (inputs / "data").exists():
        write_moving_square(inputs / "data")
    config = inputs / f"{kind}.yaml"
    config.write_text({"tokenizer": TINY_TOKENIZER, "dynamics": TINY_DYNAMICS}[kind])
    argv = ["--config", config, "--data_dir", inputs / "data", "--threads", 1, "--checkpointing_steps", 2]
    argv += ["--tokenizer", inputs / "tokenizer_run"] if kind == "dynamics" else []

    def run(folder: Path) -> None:
        train(kind, *argv, "--output_dir", folder, "--resume_from_checkpoint", "latest")

    def result(folder: Path) -> dict:
        last = folder / f"checkpoint-{loss_curve(folder)[-1]['step']}"
        # Tensors, not files: safetensors writes the entries of a header's metadata in any order.
        files = {
            f"{path.relative_to(folder)}: {name}": tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
            for path in sorted([*folder.glob("*.safetensors"), *last.glob("*.safetensors")])
            for name, tensor in load_file(path).items()
        }
        optimizer = torch.load(last / "optimizer.bin", weights_only=True)["state"]
        state = {
            f"optimizer {index} {name}": value.numpy().tobytes()
            for index, values in optimizer.items()
            for name, value in values.items()
        }
        return files | state | {"losses": repr(loss_curve(folder)).encode()}

    return Work(f"{kind} training", run, lambda folder: (folder / "model.safetensors").exists(), result)


def _in_child(call: Callable[[], object]) -> multiprocessing.Process:
    """Start a call in a separate process, without output: threads here could block a fork."""

    def quiet() -> None:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        torch.set_num_threads(1)
        call()

    process = FORK.Process(target=quiet)
    process.start()
    return process


def start(work: Work, folder: Path) -> multiprocessing.Process:
    """Start or continue the work in a folder."""
    return _in_child(lambda: work.run(folder))


def finish(work: Work, folder: Path) -> float:
    """Do all that is left, without a kill. Return how many seconds it took."""
    began = time.monotonic()
    process = start(work, folder)
    process.join()
    assert process.exitcode == 0, f"{work.name} ended with {process.exitcode}"
    return time.monotonic() - began


def kill_at_random(work: Work, folder: Path, kills: int, seed: int) -> tuple[int, int, list[str]]:
    """Kill work until it was hit `kills` times; a run that ends in between is compared, and the next one begins.

    Returns:
        The kills, the runs that were compared, and a line for each difference.
    """
    rng, hits, runs, faults = np.random.default_rng(seed), 0, 0, []
    seconds = finish(work, folder / "expected")
    expected, run = work.result(folder / "expected"), folder / "run"

    def compare() -> None:
        nonlocal runs
        found, runs = work.result(run), runs + 1
        different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        faults.extend(f"{work.name}, run {runs}: {name} differs" for name in sorted(different))
        shutil.rmtree(run)

    while hits < kills:
        process = start(work, run)
        process.join(rng.uniform(0, seconds))
        if process.exitcode is None:
            process.kill()
            hits += 1
        process.join()
        if process.exitcode not in (0, -9):
            faults.append(f"{work.name}, after {hits} kills: a resumed run ended with {process.exitcode}")
            shutil.rmtree(run)
        elif work.is_done(run):
            compare()
    if run.exists() or not runs:  # kills may all come before the work begins
        finish(work, run)
        compare()
    return hits, runs, faults


def kill_all(folder: Path, kills: int, seed: int) -> list[str]:
    """Kill every kind of work; print a row of a Markdown table for each. Return the differences."""
    inputs, faults = folder / "inputs", []
    inputs.mkdir()
    print("| work | kills | runs compared | different |\n| --- | ---: | ---: | ---: |", flush=True)
    for make in (
        conversion,
        lambda inputs: training("tokenizer", inputs),
        lambda inputs: training("dynamics", inputs),
    ):
        work = make(inputs)
        hits, runs, found = kill_at_random(work, folder / work.name.replace(" ", "_"), kills, seed)
        if work.name == "tokenizer training":
            shutil.copytree(folder / "tokenizer_training" / "expected", inputs / "tokenizer_run")
        print(f"| {work.name} | {hits} | {runs} | {len(found)} |", flush=True)
        faults += found
    return faults


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    with tempfile.TemporaryDirectory(prefix="dreamer_hf_kills_") as scratch:
        found = kill_all(Path(scratch), int(sys.argv[1]), int(sys.argv[2]))
    print("\n".join(found))
    sys.exit(bool(found))

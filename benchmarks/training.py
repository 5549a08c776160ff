"""Measure training steps of the dynamics model against plain PyTorch models, as ratios in one run, and print tables.

The plain models (reference/plain_dreamer4.py) compute the same loss on the same batches in three passes over the whole
batch. A step is loss, gradients, clipping and the optimizer's update. From pixels, the frozen tokenizer encodes first.

python benchmarks/training.py                on this machine's GPU, or its CPU
python benchmarks/training.py --quick        a test at toy size: its figures mean nothing
"""

import argparse
import contextlib
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmark_tools import (
    DYNAMICS_10M,
    TOKENIZER_10M,
    Timings,
    count_flops,
    describe_machine,
    import_plain_models,
    matmul_peak,
    print_table,
    speedup,
    time_interleaved,
)
from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel, DreamerTokenizerConfig, DreamerTokenizerModel
from dreamer_hf.cli import run_script
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardMetadata, shard_name
from dreamer_hf.losses import FrameConditions, is_bootstrap_row, sample_training_row, shortcut_forcing_loss
from dreamer_hf.training.argument_parsing import parse_arguments
from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments
from dreamer_hf.training.dynamics_objective import DynamicsObjective
from dreamer_hf.training.optimizers import build_optimizers, compile_layers

BOOTSTRAP_FRACTION = 0.25
NUM_BATCHES = 4
"""Batches that the rounds cycle through; the same ones for every variant."""
CPU_WORKLOADS = {"pusht-tiny": (64, 8, 8), "10M": (64, 8, 8)}
GPU_WORKLOADS = {"pusht": (256, 8, 8), "soar-large": (256, 4, 1)}
"""For each preset: pixels of a frame, windows of a batch, and how many of them go through the model at a time
(gradients are accumulated). A batch is a multiple of four windows, so that all have the same fraction of bootstrap
rows. 10M is the world that benchmarks/rollout.py times."""
GPU_VARIANTS = {"plain": None, "plain bf16": torch.bfloat16, "ours bf16": torch.bfloat16, "compiled": torch.bfloat16}
PLAIN_VARIANTS = ("plain", "plain bf16")
GPU_HEADER = [
    "dynamics step",
    "plain float32, frames/s",
    "plain bf16",
    "ours bf16",
    "ours bf16, compiled",
    "compiled / plain float32",
    "compiled / plain bf16",
    "of the matrix-multiply peak",
]
SOURCES = ("latents", "pixels")
Case = tuple["Workload", Literal["latents", "pixels"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="Steps of each variant (default: %(default)s).")
    parser.add_argument("--quick", action="store_true", help="Toy size and two rounds, to test this script.")
    names = sorted({*CPU_WORKLOADS, *GPU_WORKLOADS})
    parser.add_argument(
        "--only", nargs="+", choices=names, help="Sizes to measure (default: all that suit the machine)."
    )
    parser.add_argument(
        "--sources", nargs="+", choices=SOURCES, default=SOURCES, help="What steps start from (default: both)."
    )
    parser.add_argument(
        "--without",
        nargs="+",
        choices=PLAIN_VARIANTS,
        default=[],
        help="Variants to omit on a GPU (plain is slow in float32).",
    )
    parser.add_argument("--num_workers", type=int, default=2, help="Processes that read data (default: %(default)s).")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{describe_machine(device)}; frames/s are medians of {rounds} interleaved steps, quartiles in brackets.\n")
    workloads = GPU_WORKLOADS if device.type == "cuda" and not args.quick else CPU_WORKLOADS
    if args.quick:
        workloads = {"pusht-tiny": (64, 4, 2)}
    foreign = set(args.only or ()) - workloads.keys()
    if foreign:
        raise ValueError(
            f"--only {' '.join(sorted(foreign))} is for another machine: choose from {', '.join(workloads)}."
        )
    workloads = {name: sizes for name, sizes in workloads.items() if name in (args.only or workloads)}
    cases = _cases(workloads, args.sources, device)
    if device.type == "cuda":
        measure_on_gpu(cases, rounds, device, {k: v for k, v in GPU_VARIANTS.items() if k not in args.without})
    else:
        measure_on_cpu(cases, rounds, device)
    if args.only is None or "pusht-tiny" in args.only:
        measure_waiting(args.num_workers, 4 if args.quick else 60, device)


def measure_on_cpu(cases: Iterator[Case], rounds: int, device: torch.device) -> None:
    """Measure in float32, as `make demo-train` trains, and leave the rows open that only a GPU can fill."""
    peak = matmul_peak(device, torch.float32)
    print(f"Matrix-multiply peak, float32: {peak / 1e9:.0f} GFLOP/s.\n")

    def row(workload: Workload, source: str) -> list[str]:
        timings, flops = measure_variants(workload, source, rounds, {"plain": None, "ours": None})
        plain, ours = timings["plain"], timings["ours"]
        speeds = [timing.rate(workload.num_frames) for timing in (plain, ours)]
        share = f"{flops / ours.median / peak:.0%}"
        return [workload.describe(source), *speeds, speedup(plain, ours, device), share]

    header = ["dynamics step", "plain, frames/s", "ours, frames/s", "ours / plain", "of the matrix-multiply peak"]
    print_table(header, (row(*case) for case in cases))
    print_table(GPU_HEADER, [[name, *["open (no GPU here)"] * (len(GPU_HEADER) - 1)] for name in GPU_WORKLOADS])


def measure_on_gpu(
    cases: Iterator[Case], rounds: int, device: torch.device, variants: dict[str, torch.dtype | None]
) -> None:
    peak = matmul_peak(device, torch.bfloat16)
    print(f"Matrix-multiply peak, bfloat16: {peak / 1e12:.0f} TFLOP/s.\n")

    def row(workload: Workload, source: str) -> list[str]:
        timings, flops = measure_variants(workload, source, rounds, variants)
        best = timings["compiled"]
        speeds = [timings[name].rate(workload.num_frames) if name in timings else "omitted" for name in GPU_VARIANTS]
        plain = [speedup(timings[name], best, device) if name in timings else "omitted" for name in PLAIN_VARIANTS]
        return [workload.describe(source), *speeds, *plain, f"{flops / best.median / peak:.0%}"]

    print_table(GPU_HEADER, (row(*case) for case in cases))


def _cases(workloads: dict[str, tuple[int, int, int]], sources: list[str], device: torch.device) -> Iterator[Case]:
    """Yield each size with each source. Only one size is in memory at a time."""
    for name, sizes in workloads.items():
        workload = Workload.of(name, *sizes, device)
        for source in sources:
            yield workload, source


@dataclass
class Workload:
    """A size of world and of batch, with random weights and random batches that all variants share.

    Attributes:
        tokenizer, dynamics: our models; the plain ones copy their weights.
        batches: arguments of the objective, with frames (B, T, 3, H, W) uint8 instead of the latents.
        latents: (B, T, N_z, d_z) of each batch, for steps that do not start from frames.
        together: windows that go through the model at a time.
    """

    name: str
    tokenizer: DreamerTokenizerModel
    dynamics: DreamerDynamicsModel
    batches: list[tuple[torch.Tensor, ...]]
    latents: list[torch.Tensor]
    together: int

    @classmethod
    def of(cls, name: str, image_size: int, batch_size: int, together: int, device: torch.device) -> "Workload":
        torch.manual_seed(0)
        tokenizer_values, values, frames = world_values(name)
        with device:
            tokenizer = DreamerTokenizerModel(DreamerTokenizerConfig(**tokenizer_values | {"image_size": image_size}))
            latent = {key: getattr(tokenizer.config, key) for key in ("num_latent_tokens", "latent_dim")}
            dynamics = DreamerDynamicsModel(DreamerDynamicsConfig(**latent, **values)).train()
        tokenizer.eval().requires_grad_(False)
        batches = [draw_batch(dynamics.config, image_size, batch_size, frames, n, device) for n in range(NUM_BATCHES)]
        shape = (batch_size, frames, *latent.values())
        return cls(name, tokenizer, dynamics, batches, [torch.rand(shape, device=device) for _ in batches], together)

    @cached_property
    def plain(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The plain tokenizer and the plain dynamics model."""
        plain = import_plain_models()
        with self.dynamics.device:
            return plain.plain_tokenizer(self.tokenizer).requires_grad_(False), plain.plain_dynamics(self.dynamics)

    @property
    def num_frames(self) -> int:
        return self.batches[0][1].shape[:2].numel()

    def describe(self, source: str) -> str:
        batch, frames = self.batches[0][1].shape[:2]
        size = self.dynamics.num_parameters() / 1e6
        start = "latents given" if source == "latents" else "from pixels, frozen tokenizer"
        return f"{self.name} ({size:.3g}M parameters, {batch} x {frames} frames), {start}"


def world_values(name: str) -> tuple[dict, dict, int]:
    """Return the fields of both configs, and the frames of a window."""
    if name == "10M":
        return TOKENIZER_10M, DYNAMICS_10M, 32
    required = ["--data_dir", "-", "--output_dir", "-"]
    tokenizer = parse_arguments(TokenizerArguments, ["--preset", name, *required])
    dynamics = parse_arguments(DynamicsArguments, ["--preset", name, "--tokenizer", "-", *required])
    return tokenizer.model_values(), dynamics.model_values(), dynamics.data.sequence_length


def draw_batch(config, image_size: int, batch_size: int, frames: int, number: int, device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(number)
    shape = (batch_size, frames)
    pixels = torch.randint(256, (*shape, 3, image_size, image_size), dtype=torch.uint8, generator=generator)
    bootstrap = [is_bootstrap_row(number * batch_size + row, BOOTSTRAP_FRACTION) for row in range(batch_size)]
    grid = [sample_training_row(frames, config.num_signal_levels, b, generator, "cpu") for b in bootstrap]
    levels, steps = (torch.stack(column) for column in zip(*grid))
    noise = torch.randn(*shape, config.num_latent_tokens, config.latent_dim, generator=generator)
    actions = torch.randn(*shape, config.action_dim, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    return tuple(tensor.to(device) for tensor in (pixels, actions, mask, levels, steps, noise))


def measure_variants(
    workload: Workload, source: str, rounds: int, variants: dict[str, torch.dtype | None]
) -> tuple[dict[str, Timings], int]:
    """Time variants (with autocast if they have a dtype), and count the operations of ours."""
    steps = {name: make_step(workload, source, name, dtype) for name, dtype in variants.items()}
    device = workload.latents[0].device
    ours = steps["ours" if "ours" in steps else "ours bf16"]
    flops = count_flops(lambda: ours(0))
    return time_interleaved(steps, rounds, device, warm_up=2), flops


def our_loss(model, latents, actions, action_mask, signal_ids, step_ids, noise) -> torch.Tensor:
    """Return our shortcut forcing loss; the arguments are those of the plain `shortcut_loss`."""
    return shortcut_forcing_loss(
        model, latents, noise, FrameConditions(signal_ids, step_ids, actions, action_mask)
    ).loss


def make_step(workload: Workload, source: str, variant: str, dtype: torch.dtype | None) -> Callable[[int], None]:
    """Return a training step of one variant, a function of the round's number."""
    tokenizer, model, loss_of = workload.tokenizer, workload.dynamics, our_loss
    encode = lambda pixels: tokenizer.encode(pixels).latents  # noqa: E731
    if variant.startswith("plain"):
        plain_tokenizer, model = workload.plain
        encode, loss_of = plain_tokenizer.encode, import_plain_models().shortcut_loss
    elif variant == "compiled":
        model = copy.deepcopy(model)
        compile_layers(model)
        if source == "pixels":
            tokenizer = copy.deepcopy(tokenizer)
            compile_layers(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    device_type = workload.latents[0].device.type

    def loss(latents: torch.Tensor, pixels: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type, dtype) if dtype else contextlib.nullcontext():
            if source == "pixels":
                with torch.no_grad():
                    latents = encode(pixels).float()
            return loss_of(model, latents, *conditions)

    # As in training, the first step has no coarse steps, so that this shape gets its own code.
    if variant == "compiled":
        pixels, actions, mask, levels, steps, noise = workload.batches[0]
        whole = workload.latents[0], pixels, actions, mask, levels, torch.zeros_like(steps), noise
        loss(*(tensor[: workload.together] for tensor in whole)).backward()
        optimizer.zero_grad()

    def step(number: int) -> None:
        batch = workload.latents[number % NUM_BATCHES], *workload.batches[number % NUM_BATCHES]
        parts = list(zip(*(tensor.split(workload.together) for tensor in batch)))
        for part in parts:
            (loss(*part) / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_waiting(num_workers: int, steps: int, device: torch.device) -> None:
    """Measure which fraction of a step of the tiny preset is spent waiting for its batch."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data, tokenizer = write_frames(Path(folder) / "data"), Path(folder) / "tokenizer"
        tokenizer_values, _, _ = world_values("pusht-tiny")
        DreamerTokenizerModel(DreamerTokenizerConfig(image_size=64, **tokenizer_values)).save_pretrained(tokenizer)
        for name, flags in {"latents in memory": [], "frames read": ["--cache_latents", "false"]}.items():
            argv = ["--preset", "pusht-tiny", "--data_dir", str(data), "--output_dir", "-", "--tokenizer"]
            argv += [str(tokenizer), "--dataloader_num_workers", str(num_workers), "--lpips_net", "none", *flags]
            arguments = parse_arguments(DynamicsArguments, argv)
            rows.append(
                [f"pusht-tiny, {name}, {num_workers} workers", f"{time_waiting(arguments, steps, device):.1%}"]
            )
    print_table(["dynamics training", "waiting for data"], rows)


def write_frames(folder: Path, episodes: int = 20, length: int = 64, size: int = 64) -> Path:
    """Write a folder of shards with noise of a few gray levels, which is as slow to decode as camera images."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with write_shard(folder / shard_name(0), action_dim=2) as shard:
        for episode in range(episodes):
            shard.begin_episode(episode)
            for frame in rng.integers(100, 104, (length, size, size, 3), dtype=np.uint8):
                shard.add_frame(frame)
            shard.end_episode(rng.standard_normal((length, 2)).astype(np.float32))
    ShardMetadata(1, episodes, (size, size, 3), (2,), fps=10.0).write(folder)
    return folder


def time_waiting(arguments: DynamicsArguments, steps: int, device: torch.device) -> float:
    """Return the fraction of the time of `steps` training steps that is spent waiting for the next batch."""
    objective = DynamicsObjective(arguments, 0, 1, device)
    model = objective.model.to(device).train()
    optimizers = build_optimizers(model, arguments.optimizer)
    batches = objective.batches(arguments.objective.bootstrap_start_step)
    next(batches)  # Starting the workers is not part of a step.
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch, rows = next(batches)
        waited += time.perf_counter() - asked
        terms, _ = objective.losses(model, batch, rows)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.optimizer.max_grad_norm).item()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return waited / (time.perf_counter() - start)


if __name__ == "__main__":
    run_script(main)

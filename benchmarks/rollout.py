"""Measure the speed of dreaming, frame by frame, against plain PyTorch models in one run, and print tables.

The world has random weights, on which speed does not depend: about 10M parameters on a CPU; on a GPU a 110M dynamics
model with a 400M tokenizer in bfloat16, for one player and for 16. The plain models (reference/plain_dreamer4.py) make
five dynamics passes per frame; ours are compared with them in the same precision.

python benchmarks/rollout.py                 on this machine's GPU, or its CPU
python benchmarks/rollout.py --quick         a test at toy size: its figures mean nothing

To time another implementation in the same run, use --reference CHECKOUT --adapter FILE. CHECKOUT is added to Python's
path, and FILE is Python code with one function:

    def start(world, frames):
        # world: DreamerWorldModel in eval mode, whose weights to use; frames: (B, C, 3, H, W) context frames in [0, 1]
        return step    # step(actions (B, a) float32) -> the next frames (B, 3, H, W) in [0, 1]
"""

import argparse
import importlib.util
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmark_tools import (
    DYNAMICS_10M,
    TOKENIZER_10M,
    Timings,
    copy_bandwidth,
    count_flops,
    describe_machine,
    import_plain_models,
    matmul_peak,
    print_table,
    speedup,
    time_interleaved,
)
from dreamer_hf import (
    DreamerDynamicsConfig,
    DreamerDynamicsModel,
    DreamerTokenizerConfig,
    DreamerTokenizerModel,
    DreamerWorldModel,
)
from dreamer_hf.cli import run_script
from dreamer_hf.rollout import DreamerRollout

Step = Callable[[torch.Tensor], torch.Tensor]
"""Actions (B, a) -> the next frames (B, 3, H, W)."""
TOY = {"hidden_size": 32, "num_attention_heads": 2}
NUM_STEPS = 4


@dataclass
class Variant:
    """One way to dream.

    Attributes:
        step: dreams a frame.
        passes: number of passes per frame, of the dynamics model and of the decoder.
        state_bytes: returns the size of what the dream keeps between frames; None if unknown.
    """

    step: Step
    passes: str
    state_bytes: Callable[[], int] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150, help="Frames of each variant (default: %(default)s).")
    parser.add_argument("--no_compile", action="store_true", help="Omit the compiled variant, which takes minutes.")
    parser.add_argument("--reference", type=Path, help="Checkout of another implementation to time.")
    parser.add_argument("--adapter", type=Path, help="Python file that runs it; see above.")
    parser.add_argument("--quick", action="store_true", help="Toy size and few frames, to test this script.")
    args = parser.parse_args()
    if (args.reference is None) != (args.adapter is None):
        raise ValueError("--reference and --adapter belong together: use both, or neither.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rounds = 4 if args.quick else args.rounds
    print(f"{describe_machine(device)}; {rounds} frames of each variant, interleaved.\n")
    peak, bandwidth = matmul_peak(device, dtype), copy_bandwidth(device)
    print(f"Measured limits: {peak / 1e9:,.0f} GFLOP/s in a matrix product, {bandwidth / 1e9:.1f} GB/s in a copy.\n")
    torch.manual_seed(0)
    world = build_world(device, args.quick)
    for players in (1, 16) if device.type == "cuda" else (1,):
        measure(world, players, dtype, rounds, peak, bandwidth, args)
    if device.type != "cuda":
        names = ["110M dynamics, 400M tokenizer, bf16, one player", "the same, 16 players"]
        print_table(
            ["world, on a GPU", "frames/s", "ours / plain"], [[name, *["open (no GPU here)"] * 2] for name in names]
        )


def build_world(device: torch.device, quick: bool) -> DreamerWorldModel:
    tokenizer, dynamics = TOKENIZER_10M, DYNAMICS_10M
    if device.type == "cuda":
        tokenizer, dynamics = {}, {}  # The defaults of the configs are the published sizes.
    if quick:
        tokenizer, dynamics = tokenizer | TOY, dynamics | TOY
    with device:
        tokenizer = DreamerTokenizerModel(DreamerTokenizerConfig(**tokenizer))
        latent = {name: getattr(tokenizer.config, name) for name in ("num_latent_tokens", "latent_dim")}
        dynamics = DreamerDynamicsModel(DreamerDynamicsConfig(**latent, **dynamics))
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics).eval().requires_grad_(False)


def measure(
    world: DreamerWorldModel, players: int, dtype: torch.dtype, rounds: int, peak: float, bandwidth: float, args
) -> None:
    """Time all variants for a number of players and print one table."""
    config, device = world.config, world.device
    size = config.tokenizer_config.frame_size
    frames = torch.rand(players, 2 * config.dynamics_config.context_length, 3, *size, device=device)
    actions = torch.randn(rounds, players, config.dynamics_config.action_dim, device=device)
    variants = make_variants(world, frames, dtype, args)
    timings = time_interleaved(
        {name: partial(dream, variant, actions) for name, variant in variants.items()}, rounds, device, warm_up=4
    )
    flops, num_bytes = count_flops(lambda: variants["ours"].step(actions[0])), traffic(world, variants["ours"], dtype)
    limit = max(flops / peak, num_bytes / bandwidth)
    plain = timings[plain_name(dtype)]
    rows = []
    for name, timing in timings.items():
        compared = [speedup(plain, timing, device), f"{limit / timing.median:.0%}"]
        rows.append([*columns(name, variants[name], timing, players), *compared])
    dynamics, tokenizer = (f"{part.num_parameters() / 1e6:.3g}M" for part in (world.dynamics, world.tokenizer))
    print(
        f"Dynamics {dynamics}, tokenizer {tokenizer} parameters, {size} pixels, {NUM_STEPS} denoising steps, "
        f"context of {config.dynamics_config.context_length} frames, {players} player(s). "
        f"Roofline: {flops / 1e9:.3g} GFLOP and {num_bytes / 1e6:.0f} MB per frame, so {1000 * limit:.2f} ms. "
        f"Memory: {peak_memory(device) / 2**20:,.0f} MiB, all variants together.\n"
    )
    header = ["variant", "frames/s", "ms per frame: median", "99th percentile", "passes", "state, MiB"]
    print_table([*header, "against plain", "of the roofline"], rows)


def dream(variant: Variant, actions: torch.Tensor, number: int) -> None:
    variant.step(actions[number])


def columns(name: str, variant: Variant, timing: Timings, players: int) -> list[str]:
    return [
        name,
        timing.rate(players),
        f"{1000 * timing.median:.1f}",
        f"{1000 * timing.percentile(99):.1f}",
        variant.passes,
        f"{variant.state_bytes() / 2**20:.2f}" if variant.state_bytes else "unknown",
    ]


def traffic(world: DreamerWorldModel, variant: Variant, dtype: torch.dtype) -> int:
    """Return the bytes that a frame has to read: the weights of every pass and the caches."""
    width = dtype.itemsize
    weights = NUM_STEPS * world.dynamics.num_parameters() * width
    weights += sum(parameter.numel() for parameter in world.tokenizer.decoder.parameters()) * width
    return weights + NUM_STEPS * variant.state_bytes()


def make_variants(world: DreamerWorldModel, frames: torch.Tensor, dtype: torch.dtype, args) -> dict[str, Variant]:
    merged, separate = f"{NUM_STEPS} + 1 decoder", f"{NUM_STEPS + 1} + 1 decoder"
    variants = {
        plain_name(each): Variant(plain_step(world, frames, each), separate)
        for each in dict.fromkeys((torch.float32, dtype))
    }
    if args.reference:
        variants[f"reference ({args.reference.name})"] = Variant(reference_step(world, frames, args), "unknown")
    world = world.to(dtype)
    rollouts = {"ours": world.start_rollout(frames), "ours, separate commits": world.start_rollout(frames)}
    rollouts["ours, separate commits"].latent_rollout.merge_commit = False
    if not args.no_compile:
        rollouts["ours, compiled"] = world.start_rollout(frames)
        rollouts["ours, compiled"].compile()
    for name, rollout in rollouts.items():
        passes = separate if "separate" in name else merged
        variants[name] = Variant(our_step(rollout), passes, partial(cache_bytes, rollout))
    return variants


def plain_name(dtype: torch.dtype) -> str:
    return f"plain {str(dtype).removeprefix('torch.')}"


def plain_step(world: DreamerWorldModel, frames: torch.Tensor, dtype: torch.dtype) -> Step:
    plain = import_plain_models()
    config, shape = world.config.dynamics_config, frames.shape[:2]
    latent, options = (config.num_latent_tokens, config.latent_dim), {"device": frames.device, "dtype": dtype}
    with frames.device:
        models = plain.plain_tokenizer(world.tokenizer).to(dtype), plain.plain_dynamics(world.dynamics).to(dtype)
    rollout = plain.PlainRollout(*models, frames.to(dtype), torch.randn(*shape, *latent, **options), NUM_STEPS)

    def step(actions: torch.Tensor) -> torch.Tensor:
        start, commit = torch.randn(2, len(actions), *latent, **options)
        return rollout.step(actions.to(dtype), start, commit)[0]

    return step


def our_step(rollout: DreamerRollout) -> Step:
    return lambda actions: rollout.step(actions).pixel_values


def reference_step(world: DreamerWorldModel, frames: torch.Tensor, args) -> Step:
    """Return another implementation's step, from its adapter, after checking its first frames.

    Raises:
        ValueError: the adapter has no `start`, or its step does not return frames.
    """
    sys.path.insert(0, str(args.reference.resolve()))
    spec = importlib.util.spec_from_file_location("reference_adapter", args.adapter)
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    if not hasattr(adapter, "start"):
        raise ValueError(f"{args.adapter} has no function start(world, frames): write one as --help describes.")
    step = adapter.start(world, frames)
    first = step(torch.zeros(len(frames), world.config.dynamics_config.action_dim, device=frames.device))
    if first.shape != frames[:, 0].shape or not first.isfinite().all():
        raise ValueError(
            f"expected finite frames (B, 3, H, W) from the step of {args.adapter}, got {tuple(first.shape)}."
        )
    return step


def cache_bytes(rollout: DreamerRollout) -> int:
    layers = [layer for cache in rollout.caches for layer in cache.ring_layers]
    return sum(tensor.nbytes for layer in layers for tensor in (layer.keys, layer.values))


def peak_memory(device: torch.device) -> int:
    """Return the largest amount of memory in bytes that this process has used, on the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    run_script(main)

"""Measures dreaming, frame by frame, against the plain form in one run, and prints tables.

The world has random weights (speed does not depend on them): about 10M parameters on a processor; on a GPU a 110M dynamics
model with a 400M tokenizer in bfloat16, for one player and for 16. The plain form (reference/plain_dreamer4.py) makes five
dynamics passes a frame; ours are held against it in the same precision.

python benchmarks/rollout.py                 on this machine's GPU, or its processor
python benchmarks/rollout.py --quick         a rehearsal at toy size: its figures mean nothing

Another implementation joins the run with --reference CHECKOUT --adapter FILE. CHECKOUT goes on Python's path, and FILE
is Python code with one function:

    def start(world, frames):
        # world: DreamerWorldModel, whose weights to take (eval mode); frames: (B,C,3,H,W) context in [0, 1]
        return step    # step(actions (B,a) float32) -> the next frames (B,3,H,W) in [0, 1]
"""

import argparse
import importlib.util
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from dreamer_hf import (
    DreamerDynamicsConfig,
    DreamerDynamicsModel,
    DreamerTokenizerConfig,
    DreamerTokenizerModel,
    DreamerWorldModel,
)
from dreamer_hf.cli import run_script
from dreamer_hf.rollout import DreamerRollout
from measuring import (
    DYNAMICS_10M,
    TOKENIZER_10M,
    Timings,
    copy_bandwidth,
    count_flops,
    import_plain_forms,
    in_turns,
    machine,
    matmul_peak,
    print_table,
    ratio,
)

Step = Callable[[torch.Tensor], torch.Tensor]
"""Actions (B,a) -> the next frames (B,3,H,W)."""
TOY = {"hidden_size": 32, "num_attention_heads": 2}
NUM_STEPS = 4


@dataclass
class Form:
    """One way to dream.

    Attributes:
        step: dreams a frame.
        passes: of the dynamics model and of the decoder, together, a frame.
        state: the tensors that the dream keeps between frames.
    """

    step: Step
    passes: str
    state: Callable[[], list[torch.Tensor]] = field(default=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=150, help="frames of every form (default %(default)s)")
    parser.add_argument("--no_compile", action="store_true", help="leave out the compiled form (minutes to compile)")
    parser.add_argument("--reference", type=Path, help="checkout of another implementation to time beside ours")
    parser.add_argument("--adapter", type=Path, help="Python file that runs it, see above")
    parser.add_argument("--quick", action="store_true", help="toy size, few frames: shows that everything runs")
    args = parser.parse_args()
    if (args.reference is None) != (args.adapter is None):
        raise ValueError("--reference and --adapter belong together: give both, or neither.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rounds = 4 if args.quick else args.rounds
    print(f"{machine(device)}; {rounds} frames of every form in turns.\n")
    peak, bandwidth = matmul_peak(device, dtype), copy_bandwidth(device)
    print(
        f"Limits measured here: {peak / 1e9:,.0f} GFLOP/s in a matrix product, {bandwidth / 1e9:.1f} GB/s in a copy.\n"
    )
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
        tokenizer, dynamics = {}, {}  # the configs' defaults are the published sizes
    if quick:
        tokenizer, dynamics = tokenizer | TOY, dynamics | TOY
    with device:
        tokenizer = DreamerTokenizerModel(DreamerTokenizerConfig(**tokenizer))
        latent = {name: getattr(tokenizer.config, name) for name in ("num_latent_tokens", "latent_dim")}
        dynamics = DreamerDynamicsModel(DreamerDynamicsConfig(**latent, **dynamics))
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics).eval().requires_grad_(False)


def measure(world, players: int, dtype: torch.dtype, rounds: int, peak: float, bandwidth: float, args) -> None:
    """Times all forms for a number of players and prints one table."""
    config, device = world.config, world.device
    size = config.tokenizer_config.frame_size
    frames = torch.rand(players, 2 * config.dynamics_config.context_length, 3, *size, device=device)
    actions = torch.randn(rounds, players, config.dynamics_config.action_dim, device=device)
    forms = make_forms(world, frames, dtype, args)
    timings = in_turns(
        {name: partial(dream, form, actions) for name, form in forms.items()}, rounds, device, warm_up=4
    )
    flops = count_flops(lambda: forms["ours"].step(actions[0]))
    limit = max(flops / peak, traffic(world, forms["ours"], dtype) / bandwidth)
    plain = timings[plain_name(dtype)]
    rows = [row(name, forms[name], timing, players, limit) for name, timing in timings.items()]
    for line, timing in zip(rows, timings.values()):
        line.insert(-1, ratio(plain, timing, device))
    sizes = [f"{part.num_parameters() / 1e6:.3g}M" for part in (world.dynamics, world.tokenizer)]
    print(
        f"Dynamics {sizes[0]}, tokenizer {sizes[1]} parameters, {size} pixels, {NUM_STEPS} denoising steps, window "
        f"{config.dynamics_config.context_length}, {players} player(s). Roofline: {flops / 1e9:.3g} GFLOP and "
        f"{traffic(world, forms['ours'], dtype) / 1e6:.0f} MB a frame, so {1000 * limit:.2f} ms. Memory: {peak_memory(device) / 2**20:,.0f} MiB, all forms together.\n"
    )
    header = ["form", "frames/s", "ms a frame: median", "99th percentile", "passes", "state, MiB", "against plain"]
    print_table([*header, "of the roofline"], rows)


def dream(form: Form, actions: torch.Tensor, number: int) -> None:
    form.step(actions[number])


def row(name: str, form: Form, timing: Timings, players: int, limit: float) -> list[str]:
    state = sum(tensor.nbytes for tensor in form.state()) / 2**20
    return [
        name,
        timing.rate(players),
        f"{1000 * timing.median:.1f}",
        f"{1000 * timing.percentile(99):.1f}",
        form.passes,
        f"{state:.2f}" if form.state() else "its own",
        f"{limit / timing.median:.0%}",
    ]


def traffic(world: DreamerWorldModel, form: Form, dtype: torch.dtype) -> int:
    """Bytes that a frame has to read: the weights of every pass and the caches."""
    width = dtype.itemsize
    weights = NUM_STEPS * world.dynamics.num_parameters() * width
    weights += sum(parameter.numel() for parameter in world.tokenizer.decoder.parameters()) * width
    return weights + NUM_STEPS * sum(tensor.nbytes for tensor in form.state())


def make_forms(world: DreamerWorldModel, frames: torch.Tensor, dtype: torch.dtype, args) -> dict[str, Form]:
    decoded = f"{NUM_STEPS} + 1 decoder"
    separate = f"{NUM_STEPS + 1} + 1 decoder"
    forms = {
        plain_name(kind): Form(plain_step(world, frames, kind), separate)
        for kind in dict.fromkeys((torch.float32, dtype))
    }
    if args.reference:
        forms[f"reference ({args.reference.name})"] = Form(reference_step(world, frames, args), "its own")
    world = world.to(dtype)
    rollouts = {
        "ours": world.start_rollout(frames),
        "ours, commits apart": world.start_rollout(frames),
    }
    rollouts["ours, commits apart"].latent_rollout.merge_commit = False
    if not args.no_compile:
        rollouts["ours, compiled"] = world.start_rollout(frames)
        rollouts["ours, compiled"].compile()
    for name, rollout in rollouts.items():
        forms[name] = Form(our_step(rollout), separate if "apart" in name else decoded, lambda r=rollout: state_of(r))
    return forms


def plain_name(dtype: torch.dtype) -> str:
    return f"plain {str(dtype).removeprefix('torch.')}"


def plain_step(world: DreamerWorldModel, frames: torch.Tensor, dtype: torch.dtype) -> Step:
    plain = import_plain_forms()
    config, shape = world.config.dynamics_config, frames.shape[:2]
    latent, kind = (config.num_latent_tokens, config.latent_dim), {"device": frames.device, "dtype": dtype}
    with frames.device:
        models = plain.PlainTokenizer(world.tokenizer).to(dtype), plain.PlainDynamics(world.dynamics).to(dtype)
    rollout = plain.PlainRollout(*models, frames.to(dtype), torch.randn(*shape, *latent, **kind), NUM_STEPS)

    def step(actions: torch.Tensor) -> torch.Tensor:
        start, commit = torch.randn(2, len(actions), *latent, **kind)
        return rollout.step(actions.to(dtype), start, commit)[0]

    return step


def our_step(rollout: DreamerRollout) -> Step:
    return lambda actions: rollout.step(actions).pixel_values


def reference_step(world: DreamerWorldModel, frames: torch.Tensor, args) -> Step:
    """Another implementation's step, from its adapter; its first frames are looked at.

    Raises:
        ValueError: the adapter has no `start`, or its step gives something else than frames.
    """
    sys.path.insert(0, str(args.reference.resolve()))
    spec = importlib.util.spec_from_file_location("reference_adapter", args.adapter)
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    if not hasattr(adapter, "start"):
        raise ValueError(f"{args.adapter} has no function start(world, frames): write one as --help describes.")
    step = adapter.start(world, frames)
    dreamt = step(torch.zeros(len(frames), world.config.dynamics_config.action_dim, device=frames.device))
    if dreamt.shape != frames[:, 0].shape or not dreamt.isfinite().all():
        raise ValueError(
            f"the step of {args.adapter} gives {tuple(dreamt.shape)}: it must give finite frames (B,3,H,W)."
        )
    return step


def state_of(rollout: DreamerRollout) -> list[torch.Tensor]:
    caches = rollout.latent_rollout._cache, rollout._decoder_cache
    return [tensor for cache in caches for layer in cache.ring_layers for tensor in (layer.keys, layer.values)]


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has needed at most, on the GPU where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    run_script(main)

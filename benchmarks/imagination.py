"""Measure how fast an agent imagines, against rollouts of its world with given actions, and print a table.

Both dream the same contexts in latent space with the same number of denoising passes. An agent needs one pass more per
frame: it chooses its next action when a frame has been committed, so that pass cannot be merged with the first
denoising pass of the next frame. The weights are random, on which speed does not depend.

python benchmarks/imagination.py             32 and 512 contexts on this machine's GPU, or its CPU
python benchmarks/imagination.py --quick     a test at toy size: its figures mean nothing
"""

import argparse

import torch

from benchmark_tools import describe_machine, print_table, speedup, time_interleaved, toy_world
from dreamer_hf import DreamerAgentModel, DreamerWorldModel
from dreamer_hf.cli import run_script
from dreamer_hf.loading import load_world

CONTEXT_FRAMES = 8
STATS = {"mean": [0.0, 0.0], "std": [9.0, 9.0], "min": [-36.0, -36.0], "max": [36.0, 36.0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pusht-tiny", help="World (default: %(default)s).")
    parser.add_argument("--contexts", type=int, nargs="+", default=[32, 512], help="Numbers of dreams.")
    parser.add_argument("--horizon", type=int, default=12, help="Frames of each dream (default: %(default)s).")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 4], help="Denoising passes per frame.")
    parser.add_argument("--rounds", type=int, default=3, help="Dreams of each variant (default: %(default)s).")
    parser.add_argument("--quick", action="store_true", help="Toy size, to test this script.")
    args = parser.parse_args()
    if args.quick:
        world, args.contexts, args.horizon, args.rounds = toy_world(16, action_stats=STATS), [2, 4], 2, 2
    else:
        world = load_world(args.model)
    print(f"{describe_machine(world.device)}, {torch.get_num_threads()} threads; horizon {args.horizon}.\n")
    agent = DreamerAgentModel.for_world(world, num_action_bins=15, joint_action_bins=True).eval().requires_grad_(False)
    rows = [measure(agent, count, passes, args) for count in args.contexts for passes in args.passes]
    heads = [
        "contexts",
        "denoising passes",
        "imagined frames/s",
        "given actions, frames/s",
        "imagined / given",
        "by passes",
    ]
    print_table(heads, rows)


def measure(agent: DreamerAgentModel, count: int, passes: int, args) -> list[str]:
    """Return a row of the table."""
    config = agent.world.dynamics.config
    shape = (count, CONTEXT_FRAMES, config.num_latent_tokens, config.latent_dim)
    latents = torch.randn(shape, device=agent.device).tanh()
    variants = {
        "imagined": lambda _: agent.imagine(latents, horizon=args.horizon, num_inference_steps=passes),
        "given": lambda _: follow(agent.world, latents, args.horizon, passes),
    }
    timings = time_interleaved(variants, args.rounds, agent.device, warm_up=1)
    frames, share = count * args.horizon, speedup(timings["given"], timings["imagined"], agent.device)
    expected = f"{passes / (passes + 1):.2f}x"
    return [str(count), str(passes), timings["imagined"].rate(frames), timings["given"].rate(frames), share, expected]


def follow(world: DreamerWorldModel, latents: torch.Tensor, horizon: int, passes: int) -> None:
    """Dream with given actions."""
    rollout = world.dynamics.start_rollout(latents, num_inference_steps=passes)
    actions = torch.zeros(len(latents), world.dynamics.config.action_dim, device=latents.device)
    for _ in range(horizon):
        rollout.step(actions)


if __name__ == "__main__":
    run_script(main)

"""The demo: the world that ships with the package, steered in four directions from one start."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .options import option

if TYPE_CHECKING:
    import torch

    from .modeling_dreamer_world import DreamerWorldModel
    from .start_frames import StartFrames

DIRECTIONS = {"right": (1.0, 0.0), "down": (0.0, 1.0), "left": (-1.0, 0.0), "up": (0.0, -1.0)}
SPEED = 9.0
"""Speed of the target, in pixels of the simulator's 512 per frame."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of `run_demo`."""

    model: str = option("pusht-tiny", help="World with two relative actions: a folder, a Hub repository, or its name.")
    output_dir: str = option("outputs/demo", help="Folder for the videos and the figures.")
    start: int = option(7, help="Which of the world's start frames to begin from.")
    num_dream_frames: int = option(20, help="Frames to dream.")
    seed: int = option(0, help="Seed of the dreams' noise.")


def run_demo(options: DemoOptions) -> str:
    """Steer four dreams of a world from the same start frames: right, down, left and up.

    `options.output_dir` gets dream.mp4, dream.gif and, if the world was evaluated, evaluation.md.

    Returns:
        A few lines that say what was made.

    Raises:
        ValueError, OSError: the world cannot be loaded, or does not have two actions or such a start.
    """
    # Imported here, so that the options can be read without loading PyTorch.
    import torch

    from .evaluation.report import EVALUATION_NAME, read_report
    from .evaluation.tables import evaluation_table
    from .evaluation.videos import save_videos
    from .loading import load_world
    from .start_frames import load_start_frames
    from .worlds import resolve_model

    world = load_world(options.model, device="cpu")
    starts, folder = load_start_frames(options.model), Path(resolve_model(options.model))
    if world.config.dynamics_config.action_dim != len(DIRECTIONS["right"]):
        raise ValueError(f"{options.model} does not take two actions: make videos with examples/dream.py instead.")
    if not 0 <= options.start < len(starts):
        raise ValueError(f"expected a start from 0 to {len(starts) - 1} for --start, got {options.start}.")
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(options.seed)
    videos = _steer(world, starts.select([options.start] * len(DIRECTIONS)), options.num_dream_frames, generator)
    seconds = time.perf_counter() - began
    output = Path(options.output_dir)
    for name in ("dream.mp4", "dream.gif"):
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    save_videos(output, [videos], starts.actions.shape[1], world.config.dynamics_config.fps, first_is_real=False)
    lines = [
        f"{len(DIRECTIONS)} dreams of {options.num_dream_frames} frames from the same start, "
        f"steered {', '.join(DIRECTIONS)}, in {seconds:.1f} s:",
        f"  {output / 'dream.mp4'}",
        f"  {output / 'dream.gif'}",
    ]
    if (folder / EVALUATION_NAME).is_file():
        (output / "evaluation.md").write_text(f"{evaluation_table(read_report(folder / EVALUATION_NAME))}\n", "utf-8")
        lines.append(f"How good the world is on held-out episodes: {output / 'evaluation.md'}")
    lines.append("To play the world: make play")
    return "\n".join(lines)


def _steer(
    world: "DreamerWorldModel", starts: "StartFrames", num_frames: int, generator: "torch.Generator"
) -> "dict[str, torch.Tensor]":
    """Return a video (T, 3, H, W) in [0, 1] for each direction, which begins with the context frames."""
    import torch
    from tqdm import tqdm

    from .frame_inputs import to_unit_range

    rollout = world.start_rollout(starts, generator=generator)
    actions = SPEED * torch.tensor(list(DIRECTIONS.values()))
    frames = [rollout.step(actions).pixel_values for _ in tqdm(range(num_frames), "dreaming", unit="frame")]
    videos = torch.cat([to_unit_range(starts.pixel_values_videos), torch.stack(frames, dim=1)], dim=1)
    return dict(zip(DIRECTIONS, videos, strict=True))


__all__ = ["DemoOptions", "run_demo"]

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
    from .evaluation.report import EVALUATION_NAME, read_report
    from .evaluation.tables import evaluation_table
    from .evaluation.videos import save_videos
    from .loading import load_world
    from .start_frames import load_start_frames
    from .worlds import resolve_model

    world, starts = load_world(options.model, device="cpu"), load_start_frames(options.model)
    if world.config.dynamics_config.action_dim != len(DIRECTIONS["right"]):
        raise ValueError(f"{options.model} does not take two actions: make videos with examples/dream.py instead.")
    if not 0 <= options.start < len(starts):
        raise ValueError(f"expected a start from 0 to {len(starts) - 1} for --start, got {options.start}.")
    clock = time.perf_counter()
    videos = _steer(world, starts.select([options.start] * len(DIRECTIONS)), options)
    seconds = time.perf_counter() - clock

    output, evaluation = Path(options.output_dir), Path(resolve_model(options.model)) / EVALUATION_NAME
    output.mkdir(parents=True, exist_ok=True)
    (output / "dream.mp4").unlink(missing_ok=True)
    save_videos(output, [videos], starts.actions.shape[1], world.config.dynamics_config.fps, first_is_real=False)
    lines = [
        f"{len(videos)} dreams of {options.num_dream_frames} frames from the same start, steered {', '.join(videos)}, "
        f"in {seconds:.1f} s:",
        f"  {output / 'dream.mp4'}",
        f"  {output / 'dream.gif'}",
    ]
    if evaluation.is_file():
        (output / "evaluation.md").write_text(f"{evaluation_table(read_report(evaluation))}\n", encoding="utf-8")
        lines.append(f"How good the world is on held-out episodes: {output / 'evaluation.md'}")
    play = "dreamer play" if options.model == DemoOptions.model else f"dreamer play --model {options.model}"
    return "\n".join([*lines, f"To play the world: {play}"])


def _steer(world: "DreamerWorldModel", starts: "StartFrames", options: DemoOptions) -> "dict[str, torch.Tensor]":
    """Return a video (T, 3, H, W) in [0, 1] for each direction, which begins with the context frames."""
    import torch
    from tqdm import tqdm

    from .frame_inputs import to_unit_range

    rollout = world.start_rollout(starts, generator=torch.Generator().manual_seed(options.seed))
    actions = SPEED * torch.tensor(list(DIRECTIONS.values()))
    steps = tqdm(range(options.num_dream_frames), "dreaming", unit="frame")
    frames = torch.stack([rollout.step(actions).pixel_values for _ in steps], dim=1)
    videos = torch.cat([to_unit_range(starts.pixel_values_videos), frames], dim=1)
    return dict(zip(DIRECTIONS, videos, strict=True))


__all__ = ["DemoOptions", "run_demo"]

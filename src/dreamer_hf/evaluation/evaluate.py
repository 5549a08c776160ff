"""Evaluating a world on held-out episodes, and making videos of its dreams of them."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from ..camera_views import tile_cameras
from ..data import ShardDataset
from ..data.files import new_output_folder
from ..frame_inputs import to_unit_range
from ..image_metrics import load_lpips
from ..loading import load_world
from ..modeling_dreamer_world import DreamerWorldModel
from ..worlds import resolve_model
from .data_checks import ADAPT, action_warnings, check_data_fits
from .evaluation_card import CARD_NAME, update_model_card
from .evaluation_options import DreamVideoOptions, EvaluationOptions, HeldOutOptions, Horizon
from .measurements import Measurements, measure_world
from .open_loop import DREAM, REAL, TOKENIZER, decode_latents, dream_clips, held_out_clips
from .plots import save_plots
from .report import EVALUATION_NAME, make_report, read_report, write_report
from .tables import evaluation_table
from .videos import save_videos

RECONSTRUCTION_LOSS = 2.0
"""A drop of the tokenizer's PSNR, in dB, from which on the frames count as recorded or rendered differently."""

logger = logging.getLogger(__name__)


def evaluate(options: EvaluationOptions, measure: Callable[..., Measurements] = measure_world) -> str:
    """Measure a world on held-out episodes and write the results.

    `options.output_dir` gets evaluation.json, evaluation.md (the main figures as a table), plots and videos.

    Args:
        options: of the command.
        measure: takes the arguments of `measure_world`, and returns what it does.

    Returns:
        The table.

    Raises:
        FileExistsError: the output folder is not empty.
        ValueError, OSError: the world or the data cannot be loaded, or do not fit.
    """
    folder = Path(resolve_model(options.model))
    if options.update_card:
        _check_card(options, folder)
    world, data = load_held_out(options)
    protocol = _fit(options, data)
    notes = action_warnings(world.config.dynamics_config, data)
    if notes:
        logger.warning("%s\n%s", "\n".join(notes), ADAPT)
    with new_output_folder(options.output_dir) as output:
        measurements = measure(world, data, protocol, load_lpips(options.lpips_net, world.device))
        report = make_report(world, data, protocol, measurements, notes)
        if (folder / EVALUATION_NAME).is_file():
            _compare_reconstruction(report, read_report(folder / EVALUATION_NAME))
        write_report(output / EVALUATION_NAME, report)
        table = evaluation_table(report)
        (output / "evaluation.md").write_text(f"{table}\n", encoding="utf-8")
        save_plots(output, report)
        videos = [{name: video[name] for name in (REAL, DREAM)} for video in measurements.videos]
        save_videos(output, videos, protocol.num_context_frames, world.config.dynamics_config.fps)
    if options.update_card:
        write_report(folder / EVALUATION_NAME, report)
        update_model_card(folder)
    return table


@torch.no_grad()
def save_dreams(options: DreamVideoOptions) -> str:
    """Dream held-out episodes under their own actions, and write dream.mp4 and dream.gif: real and dream side by side.

    Returns:
        A line that says what was written.

    Raises:
        FileExistsError: the output folder is not empty.
        ValueError, OSError: the world or the data cannot be loaded, or do not fit.
    """
    world, data = load_held_out(options)
    options = _fit(options, data)
    context, num_steps = options.num_context_frames, options.num_dream_frames
    with new_output_folder(options.output_dir) as output:
        frames, clips = held_out_clips(world.tokenizer, data, context, num_steps, options.num_episodes)
        with tqdm(total=num_steps, desc="dreaming", unit="frame") as progress:
            dreams = dream_clips(world.dynamics, clips, torch.Generator().manual_seed(options.seed), progress.update)
        latents = torch.cat([clips.latents[:, :context], dreams.latents.cpu()], dim=1)
        dreams = decode_latents(world.tokenizer, latents)
        pairs = zip(tile_cameras(to_unit_range(frames)), tile_cameras(dreams), strict=True)
        videos = [{REAL: real, DREAM: dream} for real, dream in pairs]
        save_videos(output, videos, context, world.config.dynamics_config.fps)
    return f"{options.output_dir}/dream.mp4 and dream.gif show the dreams of {len(videos)} held-out episodes."


def load_held_out(options: HeldOutOptions) -> tuple[DreamerWorldModel, ShardDataset]:
    """Return the world and the held-out episodes.

    Raises:
        ValueError, OSError: they cannot be loaded, or do not fit.
    """
    world = load_world(options.model, options.device, options.adapter, dtype=options.dtype)
    offset = world.config.dynamics_config.action_offset
    data = ShardDataset(options.data_dir, None, split=options.split, action_offset=offset)
    check_data_fits(world.config, data)
    return world, data


def _fit(options: Horizon, data: ShardDataset) -> Horizon:
    fitted = options.fit(data.episode_lengths)
    if fitted != options:
        logger.warning(
            "No held-out episode has the %d frames of --num_context_frames %d and --num_dream_frames %d (the longest "
            "has %d): dreaming %d frames instead.",
            options.num_context_frames + options.num_dream_frames,
            options.num_context_frames,
            options.num_dream_frames,
            max(data.episode_lengths),
            fitted.num_dream_frames,
        )
    return fitted


def _check_card(options: EvaluationOptions, folder: Path) -> None:
    """Refuse before the work what could not be done after it."""
    if options.adapter:
        raise ValueError("--update_card is for a world, not for an adapter: omit one of the two.")
    if not (folder / CARD_NAME).is_file():
        raise ValueError(f"--update_card needs a model folder with a {CARD_NAME}, which {options.model} is not.")


def _compare_reconstruction(report: dict, saved: dict) -> None:
    """Note in a report if the tokenizer does worse on its frames than in the evaluation saved with the world."""
    ours, theirs = (each["figures"]["psnr"][TOKENIZER]["mean"][0] for each in (report, saved))
    if theirs - ours > RECONSTRUCTION_LOSS:
        note = (
            f"The frames look different: the tokenizer reconstructs them at {ours:.1f} dB, those of the evaluation "
            f"saved with the world at {theirs:.1f} dB. They were rendered, resized or compressed differently."
        )
        logger.warning(note)
        report["notes"].insert(0, note)


__all__ = ["evaluate", "load_held_out", "save_dreams"]

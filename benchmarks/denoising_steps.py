"""How much a dream loses with fewer denoising passes per frame, paired by episode and by seed of the noise.

    python benchmarks/denoising_steps.py --model pusht-tiny --data_dir shards --output_dir outputs/denoising-steps

For every seed, all held-out episodes are dreamed with each number of passes from the same noise, under their own
actions and under those of other episodes. The output folder gets steps.json and steps.md: differences from the largest
number of passes, with 95 % intervals over episodes (each episode is first averaged over the seeds).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.files import new_output_folder
from dreamer_hf.evaluation.bootstrap import Bootstrap, mean, median
from dreamer_hf.evaluation.open_loop import decode_latents, dream_clips, held_out_clips
from dreamer_hf.frame_inputs import to_unit_range
from dreamer_hf.image_metrics import frame_scores
from dreamer_hf.loading import load_world
from dreamer_hf.pusht.state_errors import is_pusht, state_errors

PASSES = (1, 2, 4)
HORIZONS = (4, 8, 16, 32, 64)
MEDIANS = ("block_error", "angle_error")
"""Errors that are infinite where nothing is found, or have a long tail: compared by their medians."""


def main() -> None:
    options = parse_arguments()
    world = load_world(options.model, "cpu")
    data = ShardDataset(
        options.data_dir, None, split=options.split, action_offset=world.config.dynamics_config.action_offset
    )
    horizons = [step for step in HORIZONS if step <= options.num_dream_frames]
    with new_output_folder(options.output_dir) as output, torch.no_grad():
        values, seconds = measure(world, data, options, horizons)
        report = {"horizons": horizons, "seeds": options.seeds, "seconds_per_frame": seconds}
        report["figures"] = summarize(values, options.passes)
        (output / "steps.json").write_text(json.dumps(report, indent=1))
        (output / "steps.md").write_text(table(report, options.passes))
    print(Path(options.output_dir, "steps.md").read_text())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pusht-tiny")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--split", default="all")
    parser.add_argument("--passes", type=int, nargs="+", default=PASSES)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--num_episodes", type=int, default=40)
    parser.add_argument("--num_dream_frames", type=int, default=64)
    return parser.parse_args()


def measure(world, data, options, horizons) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return values (passes, seeds, E, horizons) by metric, and seconds per frame by number of passes."""
    context, steps = 8, options.num_dream_frames
    frames, clips = held_out_clips(world.tokenizer, data, context, steps, options.num_episodes)
    shown = [context + step - 1 for step in horizons]
    real, before = to_unit_range(frames[:, shown]), to_unit_range(frames[:, context - 1])
    shows_pusht = is_pusht(frames[:, context - 1])
    collected, seconds = {}, {str(count): 0.0 for count in options.passes}
    progress = tqdm(total=len(options.passes) * options.seeds * 2 * steps, unit="frame")
    for count in options.passes:
        world.generation_config.num_inference_steps = count
        for seed in range(options.seeds):
            started = time.perf_counter()
            own, other = (
                dream_clips(world.dynamics, each, torch.Generator().manual_seed(seed), progress.update).latents
                for each in (clips, clips.with_other_actions())
            )
            seconds[str(count)] += (time.perf_counter() - started) / (2 * steps * options.seeds)
            own, other = (decode_latents(world.tokenizer, each[:, [s - 1 for s in horizons]]) for each in (own, other))
            scores = {"psnr": decibels(own, real)}
            scores["over_other_actions"] = scores["psnr"] - decibels(other, real)
            if shows_pusht:
                errors, moved = state_errors({"dream": own}, real, before)
                scores |= {name: each["dream"] for name, each in errors.items() if name.endswith("error")}
                for name in MEDIANS:  # of blocks that moved
                    scores[name] = np.where(moved == 1, scores[name], np.nan)
            for name, score in scores.items():
                collected.setdefault(name, []).append(np.asarray(score, dtype=np.float64))
    shape = (len(options.passes), options.seeds)
    return {name: np.stack(each).reshape(*shape, *each[0].shape) for name, each in collected.items()}, seconds


def decibels(video: torch.Tensor, real: torch.Tensor) -> np.ndarray:
    """Return the PSNR (E, T) of each frame."""
    return -10 * np.log10(frame_scores(video, real)["mse"].numpy())


def summarize(values: dict[str, np.ndarray], passes) -> dict:
    """Return for each metric and number of passes the value, and the difference from the last number.

    Values are means over episodes, for block and angle medians; differences likewise, of episodes in pairs.
    """
    figures = {}
    for name, each in values.items():
        statistic = median if name in MEDIANS else mean
        per_episode = mean(each.swapaxes(1, 2))  # over the seeds
        bootstrap = Bootstrap(per_episode.shape[1])
        for index, count in enumerate(passes):
            difference = bootstrap.estimate(statistic, per_episode[index] - per_episode[-1])
            figures.setdefault(name, {})[str(count)] = {
                "value": statistic(per_episode[index]).tolist(),
                "difference": difference.value.tolist(),
                "low": difference.low.tolist(),
                "high": difference.high.tolist(),
            }
    return figures


def table(report: dict, passes) -> str:
    lines = ["| metric | passes | " + " | ".join(f"frame {step}" for step in report["horizons"]) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(report["horizons"]))
    for name, figures in report["figures"].items():
        for count in passes:
            figure = figures[str(count)]
            cells = []
            for value, low, high in zip(figure["value"], figure["low"], figure["high"]):
                interval = "" if count == passes[-1] else f" ({low:+.2f} to {high:+.2f})"
                cells.append(f"{value:.2f}{interval}")
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

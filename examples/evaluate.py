"""Measures a world on held-out episodes of a shard folder, against floors and a ceiling.

    python examples/evaluate.py --model outputs/world --data_dir data/pusht --output_dir outputs/evaluation

Writes evaluation.json, evaluation.md (the main figures as a table), plots and films. docs/evaluation.md says what is
measured and how to read it. Exit status 2 if the data do not fit the world.
"""

import argparse
from pathlib import Path

from dreamer_hf import DreamerWorldModel
from dreamer_hf.adapters import load_adapter
from dreamer_hf.cli import new_output_folder, run_script
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import (
    DREAM,
    EVALUATION_NAME,
    REAL,
    EvaluationOptions,
    evaluation_of,
    load_perceptual,
    markdown_table,
    measure_world,
    save_plots,
    save_videos,
    write_evaluation,
)
from dreamer_hf.training.model_card import CARD_NAME, update_model_card
from dreamer_hf.worlds import resolve_model


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="world: a folder or a Hub repository")
    add("--adapter", help="folder or Hub repository of an adapter for the world; see docs/adapting.md")
    add("--data_dir", required=True, help="shard folder whose held-out episodes are dreamt")
    add("--output_dir", required=True, help="new or empty folder for figures, plots and films")
    add("--num_context_frames", type=int, default=8, help="frames that are given (default %(default)s)")
    add("--num_dreamt_frames", type=int, default=64, help="frames that are dreamt (default %(default)s)")
    add("--num_episodes", type=int, default=64, help="held-out episodes at most (default %(default)s)")
    add("--batch_size", type=int, default=64, help="episodes dreamt at once (default %(default)s)")
    add("--num_filmed", type=int, default=3, help="episodes that are filmed (default %(default)s)")
    add("--lpips_net", default="alex", choices=("alex", "vgg", "none"), help="trunk of LPIPS (default %(default)s)")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="to compute in (default: as saved)")
    add("--split", default="validation", choices=("validation", "train", "all"), help="(default %(default)s)")
    add("--update_card", action="store_true", help="put evaluation.json beside the model, and its table into the card")
    add("--seed", type=int, default=0, help="of the dreams' noise and of the resampling (default %(default)s)")
    return parser.parse_args()


def check_card(arguments: argparse.Namespace) -> None:
    """Refuses before the work what could not be done after it."""
    if arguments.adapter:
        raise ValueError("--update_card is for a world, not for an adapter on it: leave one of the two out.")
    if not (Path(arguments.model) / CARD_NAME).is_file():
        raise ValueError(f"--update_card needs a model folder with a {CARD_NAME}; {arguments.model} is none.")


def main() -> None:
    arguments = parse_arguments()
    if arguments.update_card:
        check_card(arguments)
    names = ("num_context_frames", "num_dreamt_frames", "num_episodes", "batch_size", "num_filmed", "seed")
    options = EvaluationOptions(**{name: getattr(arguments, name) for name in names})
    world = DreamerWorldModel.from_pretrained(resolve_model(arguments.model), dtype=arguments.dtype).eval()
    if arguments.adapter:
        load_adapter(world, arguments.adapter)
    offset = world.config.dynamics_config.action_offset
    data = ShardDataset(arguments.data_dir, None, split=arguments.split, action_offset=offset)
    with new_output_folder(arguments.output_dir) as folder:
        perceptual = load_perceptual(arguments.lpips_net, world.device)
        measurements = measure_world(world, data, options, perceptual)
        evaluation = evaluation_of(world, data, options, measurements)
        write_evaluation(folder / EVALUATION_NAME, evaluation)
        table = markdown_table(evaluation)
        (folder / "evaluation.md").write_text(f"{table}\n", encoding="utf-8")
        save_plots(folder, evaluation)
        films = [{name: film[name] for name in (REAL, DREAM)} for film in measurements.films]
        save_videos(folder, films, options.num_context_frames, data.fps or 10)
    if arguments.update_card:
        write_evaluation(Path(arguments.model) / EVALUATION_NAME, evaluation)
        update_model_card(Path(arguments.model))
    print(table)


if __name__ == "__main__":
    run_script(main)

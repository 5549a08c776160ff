"""Converts published Dreamer-V4 `.pt` checkpoints into a folder that `from_pretrained` loads.

    python conversion/dreamer_v4_to_hf.py --tokenizer tokenizer-pushT-400M.pt --dynamics dynamics-pushT-110M.pt \\
        --output_dir pusht-world

Both files give a `DreamerWorldModel` folder, one gives that model's.
"""

import argparse

from dreamer_hf import DreamerVideoProcessor, DreamerWorldModel
from dreamer_hf.cli import run_script
from dreamer_hf.data.files import new_output_folder
from dreamer_hf.published_checkpoints import PUBLISHED_CONTEXT_LENGTH, convert_dynamics, convert_tokenizer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="published tokenizer file (.pt)")
    parser.add_argument("--dynamics", help="published dynamics file (.pt)")
    parser.add_argument("--output_dir", required=True, help="new or empty folder for the converted model")
    parser.add_argument("--tokenizer_num_attention_heads", type=int, help="default: width / 64")
    parser.add_argument("--dynamics_num_attention_heads", type=int, help="default: width / 64")
    parser.add_argument(
        "--context_length", type=int, default=PUBLISHED_CONTEXT_LENGTH, help="window in frames (default: %(default)s)"
    )
    parser.add_argument(
        "--num_latent_tokens",
        type=int,
        default=256,
        help="of a dynamics file without its tokenizer (default: %(default)s)",
    )
    parser.add_argument("--fps", type=float, help="frames a second of the training data, recorded in the config")
    parser.add_argument(
        "--action_offset",
        type=int,
        choices=(0, 1),
        default=0,
        help="alignment of actions (default: %(default)s, as published)",
    )
    return parser.parse_args()


def convert(arguments: argparse.Namespace):
    """The model for what was given: a world, a tokenizer or a dynamics model."""
    tokenizer, num_latents = None, arguments.num_latent_tokens
    if arguments.tokenizer:
        tokenizer = convert_tokenizer(
            arguments.tokenizer, arguments.tokenizer_num_attention_heads, arguments.context_length
        )
        num_latents = tokenizer.config.num_latent_tokens
    if not arguments.dynamics:
        return tokenizer
    dynamics = convert_dynamics(
        arguments.dynamics,
        num_latents,
        arguments.dynamics_num_attention_heads,
        arguments.context_length,
        arguments.fps,
        arguments.action_offset,
    )
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics) if tokenizer else dynamics


def describe_heads(model) -> str:
    """The numbers of heads: the one thing that a wrong guess would spoil without an error."""
    configs = [getattr(model.config, name, None) for name in ("tokenizer_config", "dynamics_config")]
    heads = [config.num_attention_heads for config in configs if config] or [model.config.num_attention_heads]
    return f"{' and '.join(map(str, heads))} attention heads"


def main() -> None:
    arguments = parse_arguments()
    if not (arguments.tokenizer or arguments.dynamics):
        raise ValueError("nothing to convert: give --tokenizer, --dynamics or both.")
    with new_output_folder(arguments.output_dir) as folder:
        model = convert(arguments)
        model.save_pretrained(folder)
        if arguments.tokenizer:
            config = getattr(model.config, "tokenizer_config", model.config)
            DreamerVideoProcessor.for_tokenizer(config).save_pretrained(folder)
    print(
        f"wrote {type(model).__name__} ({model.num_parameters() / 1e6:.1f}M parameters, {describe_heads(model)}) to {arguments.output_dir}"
    )


if __name__ == "__main__":
    run_script(main)

"""The command that converts published Dreamer-V4 `.pt` checkpoints into a folder that `from_pretrained` loads."""

import argparse

from transformers import PreTrainedModel

from .data.files import new_output_folder
from .modeling_dreamer_world import DreamerWorldModel
from .published_checkpoints import PUBLISHED_CONTEXT_LENGTH, convert_dynamics, convert_tokenizer
from .video_processing_dreamer import DreamerVideoProcessor


def parse_arguments(description: str | None, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the arguments of the command; those of the process by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="convert this published tokenizer file (.pt)")
    parser.add_argument("--dynamics", help="convert this published dynamics file (.pt)")
    parser.add_argument("--output_dir", required=True, help="write the model to this folder, which is new or empty")
    for part in ("tokenizer", "dynamics"):
        parser.add_argument(
            f"--{part}_num_attention_heads",
            type=int,
            help=f"set the number of attention heads of the {part}, which its file does not store (default: width / 64)",
        )
    parser.add_argument(
        "--context_length",
        type=int,
        default=PUBLISHED_CONTEXT_LENGTH,
        help="set the window of the time layers in frames, which the files do not store (default: %(default)s)",
    )
    parser.add_argument(
        "--num_latent_tokens",
        type=int,
        default=256,
        help="set the latent tokens of a frame, for a dynamics file without its tokenizer (default: %(default)s)",
    )
    parser.add_argument("--fps", type=float, help="record the frames per second of the training data (default: 10)")
    parser.add_argument(
        "--action_offset",
        type=int,
        choices=(0, 1),
        default=0,
        help="pair a frame with the action recorded with it (0) or with the command before it (1) (default: %(default)s)",
    )
    return parser.parse_args(argv)


def convert(arguments: argparse.Namespace) -> PreTrainedModel:
    """Return the model of the given files: a world, a tokenizer or a dynamics model.

    Raises:
        ValueError: if a file does not fit; see `published_checkpoints`.
        FileNotFoundError: if there is no such file.
    """
    tokenizer, num_latents = None, arguments.num_latent_tokens
    if arguments.tokenizer:
        heads = arguments.tokenizer_num_attention_heads
        tokenizer = convert_tokenizer(arguments.tokenizer, heads, arguments.context_length)
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


def run_published_conversion(description: str | None = __doc__, argv: list[str] | None = None) -> None:
    """Run the command: two files give a `DreamerWorldModel` folder, one file gives the folder of its model.

    Args:
        description: text above the flags in `--help`.
        argv: arguments; those of the process by default.

    Raises:
        ValueError, OSError: if there is nothing to convert, a file does not fit, or the output folder is not empty.
    """
    arguments = parse_arguments(description, argv)
    if not (arguments.tokenizer or arguments.dynamics):
        raise ValueError("nothing to convert: give --tokenizer, --dynamics or both.")
    with new_output_folder(arguments.output_dir) as folder:
        model = convert(arguments)
        model.save_pretrained(folder)
        if arguments.tokenizer:
            config = getattr(model.config, "tokenizer_config", model.config)
            DreamerVideoProcessor.for_tokenizer(config).save_pretrained(folder)
    print(
        f"wrote {type(model).__name__} ({model.num_parameters() / 1e6:.1f}M parameters, {_describe_heads(model)}) to "
        f"{arguments.output_dir}"
    )


def _describe_heads(model: PreTrainedModel) -> str:
    """Return the numbers of heads: the one value that spoils a model without an error if it is wrong."""
    configs = [getattr(model.config, name, None) for name in ("tokenizer_config", "dynamics_config")]
    heads = [config.num_attention_heads for config in configs if config] or [model.config.num_attention_heads]
    return f"{' and '.join(map(str, heads))} attention heads"


__all__ = ["convert", "parse_arguments", "run_published_conversion"]

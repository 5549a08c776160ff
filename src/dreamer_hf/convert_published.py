"""Convert published Dreamer-V4 `.pt` checkpoints into a folder that `from_pretrained` loads."""

from dataclasses import dataclass

from .options import option


@dataclass(frozen=True, kw_only=True)
class PublishedOptions:
    """The options of `convert_published`."""

    tokenizer: str | None = option(None, metavar="FILE.pt", help="Published tokenizer.")
    dynamics: str | None = option(None, metavar="FILE.pt", help="Published dynamics model.")
    output_dir: str = option(help="New or empty folder for the converted model.")
    tokenizer_num_attention_heads: int | None = option(
        None, help="Attention heads of the tokenizer. Defaults to its width divided by 64."
    )
    dynamics_num_attention_heads: int | None = option(
        None, help="Attention heads of the dynamics model. Defaults to its width divided by 64."
    )
    context_length: int = option(32, help="Frames that a time layer attends to.")
    num_latent_tokens: int = option(256, help="Latent tokens per frame of a dynamics model without its tokenizer.")
    fps: float | None = option(None, help="Frame rate of the training data, which is saved with the model.")
    action_offset: int = option(
        0,
        choices=(0, 1),
        help="1 if a frame goes with the action that led to it; 0 if it goes with the action recorded with it.",
    )


def convert_published(options: PublishedOptions) -> str:
    """Convert a tokenizer, a dynamics model, or both, which make a world.

    Returns:
        What was written, in one line.

    Raises:
        ValueError, OSError: The files cannot be converted, or the folder is not empty.
    """
    # Imported here, so that the options can be read without loading PyTorch.
    from .data.files import new_output_folder
    from .video_processing_dreamer import DreamerVideoProcessor

    if not (options.tokenizer or options.dynamics):
        raise ValueError("nothing to convert: give --tokenizer, --dynamics or both.")
    with new_output_folder(options.output_dir) as folder:
        model = _convert(options)
        model.save_pretrained(folder)
        if options.tokenizer:
            config = getattr(model.config, "tokenizer_config", model.config)
            DreamerVideoProcessor.for_tokenizer(config).save_pretrained(folder)
    size = f"{model.num_parameters() / 1e6:.1f}M parameters, {_heads(model)}"
    return f"wrote {type(model).__name__} ({size}) to {options.output_dir}"


def _convert(options: PublishedOptions):
    from .modeling_dreamer_world import DreamerWorldModel
    from .published_checkpoints import convert_dynamics, convert_tokenizer

    tokenizer, num_latents = None, options.num_latent_tokens
    if options.tokenizer:
        tokenizer = convert_tokenizer(options.tokenizer, options.tokenizer_num_attention_heads, options.context_length)
        num_latents = tokenizer.config.num_latent_tokens
    if not options.dynamics:
        return tokenizer
    heads = options.dynamics_num_attention_heads
    dynamics = convert_dynamics(
        options.dynamics, num_latents, heads, options.context_length, options.fps, options.action_offset
    )
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics) if tokenizer else dynamics


def _heads(model) -> str:
    """Return the numbers of attention heads: the one value that spoils a model without an error if it is wrong."""
    configs = [getattr(model.config, name, None) for name in ("tokenizer_config", "dynamics_config")]
    heads = [config.num_attention_heads for config in configs if config] or [model.config.num_attention_heads]
    return f"{' and '.join(map(str, heads))} attention heads"


__all__ = ["PublishedOptions", "convert_published"]

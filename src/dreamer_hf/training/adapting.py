"""What of a saved dynamics model is trained on: all of it, some parts, adapters, or a new action encoder."""

from pathlib import Path

from torch import nn

from ..adapters import ACTION_KEYS, add_lora, replace_action_encoder
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from .arguments import DynamicsArguments
from .pretrained import DYNAMICS, load_for_finetuning


def load_to_adapt(arguments: DynamicsArguments, wanted: dict, actions: dict) -> DreamerDynamicsModel:
    """Loads the `pretrained` model of a run and makes trainable what the run asks for.

    Args:
        arguments: keys of the run.
        wanted: config values that the run asks for or that its data have.
        actions: values of `ACTION_KEYS` that a new action encoder is to have.

    Raises:
        FileNotFoundError, ValueError: as `load_for_finetuning`; also if PEFT is needed and not installed.
    """
    path, resets = arguments.pretrained, arguments.reset_action_embedding
    if resets:
        wanted = {key: value for key, value in wanted.items() if key not in ACTION_KEYS}
    model = load_for_finetuning(path, DYNAMICS, wanted)
    if resets:
        replace_action_encoder(model, actions)
    if arguments.lora_rank:
        # An adapter may be shared: it names the folder of its world, not the way to it.
        base = Path(path).resolve().name if Path(path).exists() else path
        alpha = arguments.lora_alpha or 2 * arguments.lora_rank
        add_lora(model, arguments.lora_rank, alpha, base, train_action_encoder=resets)
    for name, parameter in model.named_parameters():
        if part_of(model, name) in (arguments.freeze or ()):
            parameter.requires_grad_(False)
    return model


def part_of(model: DreamerDynamicsModel, parameter_name: str) -> str:
    """The one of `FREEZABLE_PARTS` that a parameter belongs to."""
    module, *rest = parameter_name.split(".")
    if module == "transformer":
        return "time" if model.transformer.layers[int(rest[1])].self_attn.is_temporal else "space"
    return {"latent_embed": "latents", "latent_head": "latents", "action_encoder": "actions"}.get(module, "control")


def has_adapter(model: nn.Module) -> bool:
    """Whether a model carries a PEFT adapter, which is then all that is trained."""
    return hasattr(model, "peft_config")

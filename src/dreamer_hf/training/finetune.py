"""Models that a run starts from: the frozen tokenizer of a dynamics run, or weights to fine-tune, whole or in part."""

from typing import Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ..adapters import ACTION_KEYS, add_lora, replace_action_encoder
from ..configuration_dreamer import DreamerWorldConfig
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..worlds import resolve_model
from .arguments import DynamicsArguments

TOKENIZER, DYNAMICS = "dreamer_tokenizer", "dreamer_dynamics"


def load_model(path: str, model_type: Literal["dreamer_tokenizer", "dreamer_dynamics"]) -> PreTrainedModel:
    """Loads a saved model, or the part of a saved world that is one, in float32.

    Args:
        path: folder, Hub repository or name of a shipped world.
        model_type: what is wanted.

    Raises:
        FileNotFoundError: there is no model at the path.
        ValueError: what is there is something else.
    """
    name, path = model_type.removeprefix("dreamer_"), resolve_model(path)
    try:
        found = AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"there is no {name} at {path}: give the folder that train_{name}.py wrote, or a Hub repository."
        ) from error
    if found not in (model_type, DreamerWorldConfig.model_type):
        raise ValueError(f"{path} holds a {found}, not a {name}: give the folder that train_{name}.py wrote.")
    model = AutoModel.from_pretrained(path, dtype=torch.float32)
    return model if found == model_type else getattr(model, name)


def load_for_finetuning(path: str, model_type: str, wanted: dict) -> PreTrainedModel:
    """Loads a model whose weights a run starts from; its config stays its own.

    Args:
        path, model_type: as in `load_model`.
        wanted: config values that the run asks for or that its data have.

    Raises:
        FileNotFoundError, ValueError: as `load_model`; also a model of other sizes, which are named.
    """
    model = load_model(path, model_type)
    for key, value in wanted.items():
        found = getattr(model.config, key)
        if found != value:
            raise ValueError(
                f"the model at {path} has {key}={found} but this run asks for {value}: "
                f"{_remedy(key, found, model_type)}, or start from new weights without --pretrained."
            )
    return model


def _remedy(key: str, found, model_type: str) -> str:
    """What makes a run ask for what a model has."""
    if key == "action_dim":
        return "give data of that width, or --reset_action_embedding for actions of another"
    if key in ("image_size", "fps"):
        return "give data that fit it"
    if model_type == DYNAMICS and key in ("num_latent_tokens", "latent_dim"):
        return "give the tokenizer that it was trained on"
    return f"give --{key} {found}"


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
        alpha = arguments.lora_alpha or 2 * arguments.lora_rank
        add_lora(model, arguments.lora_rank, alpha, path, train_action_encoder=resets)
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

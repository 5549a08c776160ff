"""Models that a run starts from: the frozen tokenizer of a dynamics run, or weights to fine-tune, whole or in part."""

import logging
from typing import Literal

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from ..adapters import ACTION_KEYS, add_lora, replace_action_encoder
from ..configuration_dreamer import DreamerWorldConfig
from ..configuration_dreamer_agent import DreamerAgentConfig
from ..modeling_dreamer_agent import DreamerAgentModel
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_world import DreamerWorldModel
from ..weight_files import read_config, verify_weights
from ..worlds import resolve_model
from .arguments import DynamicsArguments

logger = logging.getLogger(__name__)
TOKENIZER, DYNAMICS = "dreamer_tokenizer", "dreamer_dynamics"
SIMILAR_SPREAD = 3
"""Factor up to which the spread of an action component in new data still suits the statistics of a saved model."""


def load_model(path: str, model_type: Literal["dreamer_tokenizer", "dreamer_dynamics"]) -> PreTrainedModel:
    """Load a saved model, or the part of a saved world that is one, in float32.

    Args:
        path: folder, Hub repository or name of a shipped world.
        model_type: the kind of model.

    Raises:
        FileNotFoundError: there is no model at the path.
        OSError: its weights are damaged, or not those that were saved.
        ValueError: the path holds another kind of model, or weights are missing.
    """
    name = model_type.removeprefix("dreamer_")
    model = _load(path, (model_type, DreamerWorldConfig.model_type), name)
    return model if model.config.model_type == model_type else getattr(model, name)


def load_world(path: str) -> DreamerWorldModel:
    """Load a saved world, or that of a saved agent, in float32.

    Args:
        path: folder, Hub repository or name of a shipped world.

    Raises:
        FileNotFoundError: there is no model at the path.
        OSError: its weights are damaged, or not those that were saved.
        ValueError: the path holds another kind of model, or weights are missing.
    """
    model = _load(path, (DreamerWorldConfig.model_type, DreamerAgentConfig.model_type), "world")
    return getattr(model, "world", model)


def load_agent(path: str) -> DreamerAgentModel:
    """Load a saved agent in float32; arguments and errors as in `load_world`."""
    return _load(path, (DreamerAgentConfig.model_type,), "agent")


def _load(path: str, model_types: tuple[str, ...], name: str) -> PreTrainedModel:
    path = resolve_model(path)
    try:
        found = read_config(path).get("model_type")
    except OSError as error:
        raise FileNotFoundError(
            f"there is no {name} at {path}: give the folder of a trained one, or a Hub repository."
        ) from error
    if found not in model_types:
        article = "an" if name[0] in "aeiou" else "a"
        raise ValueError(f"{path} holds a {found}, not {article} {name}: give the folder of a trained {name}.")
    verify_weights(path)
    return AutoModel.from_pretrained(path, dtype=torch.float32)


def load_for_finetuning(path: str, model_type: str, wanted: dict) -> PreTrainedModel:
    """Load a model to start from its weights; its config does not change.

    Args:
        path, model_type: as in `load_model`.
        wanted: config values that the run asks for or that its data have.

    Raises:
        FileNotFoundError, ValueError: as `load_model`, or the model has other values than the wanted ones.
    """
    model = load_model(path, model_type)
    for name, value in wanted.items():
        found = getattr(model.config, name)
        if found != value:
            raise ValueError(
                f"the model at {path} has {name}={found} but this run asks for {value}: "
                f"{_remedy(name, found, model_type)}, or start from new weights without --pretrained."
            )
    return model


def _remedy(name: str, found, model_type: str) -> str:
    """Return how to make a run ask for what a model has."""
    if name == "action_dim":
        return "give data of that width, or --reset_action_embedding for actions of another"
    if name in ("image_size", "fps", "camera_names"):
        return "give data that fit it"
    if model_type == DYNAMICS and name in ("num_latent_tokens", "latent_dim"):
        return "give the tokenizer that it was trained on"
    return f"give --{name} {found}"


def load_to_adapt(arguments: DynamicsArguments, wanted: dict, actions: dict) -> DreamerDynamicsModel:
    """Load the `pretrained` model of a run and make trainable what the run asks for.

    Args:
        arguments: options of the run.
        wanted: config values that the run asks for or that its data have.
        actions: the values of `ACTION_KEYS` that describe the actions of the data.

    Raises:
        FileNotFoundError, ValueError: as `load_for_finetuning`; also if PEFT is needed and not installed.
    """
    path, objective = arguments.run.pretrained, arguments.objective
    if objective.reset_action_embedding:
        wanted = {name: value for name, value in wanted.items() if name not in ACTION_KEYS}
    model = load_for_finetuning(path, DYNAMICS, wanted)
    if objective.reset_action_embedding:
        replace_action_encoder(model, actions)
    else:
        warn_of_other_actions(model.config, actions)
    if objective.lora_rank:
        alpha = objective.lora_alpha or 2 * objective.lora_rank
        add_lora(model, objective.lora_rank, alpha, path, train_action_encoder=objective.reset_action_embedding)
    for name, parameter in model.named_parameters():
        if part_of(model, name) in (objective.freeze or ()):
            parameter.requires_grad_(False)
    return model


def check_state_fits(model: DreamerDynamicsModel, path: str, state_dim: int) -> None:
    """Check that the states of data are those of a saved model; data may also have none.

    Raises:
        ValueError: both have a state, of different widths.
    """
    ours = model.config.state_dim
    if ours and state_dim and ours != state_dim:
        names = f" ({', '.join(model.config.state_names)})" if model.config.state_names else ""
        raise ValueError(
            f"the model at {path} has a state of width {ours}{names}, but the data have one of width {state_dim}: "
            "give data of that width, or start from new weights without --pretrained."
        )


def warn_of_other_actions(config: PreTrainedConfig, actions: dict) -> None:
    """Warn if data have actions of the same width as a model's, but of another meaning.

    Args:
        config: config of the dynamics model.
        actions: values of the same fields that describe the data.
    """
    differences = []
    for name in ("action_names", "action_units"):
        ours, theirs = getattr(config, name), actions.get(name)
        if ours and theirs and ours != theirs:
            differences.append(f"{name.replace('_', ' ')} {theirs} instead of {ours}")
    if config.action_stats and actions.get("action_stats"):
        spreads = zip(config.action_stats["std"], actions["action_stats"]["std"])
        ratios = [max(a, b) / min(a, b) for a, b in spreads if min(a, b) > 0]
        if ratios and max(ratios) > SIMILAR_SPREAD:
            differences.append(f"actions that spread {max(ratios):.3g} times as widely or narrowly")
    if differences:
        logger.warning(
            f"the data have {' and '.join(differences)}: if their actions mean something else than those of the "
            "--pretrained model, give --reset_action_embedding."
        )


def part_of(model: DreamerDynamicsModel, parameter_name: str) -> str:
    """Return the one of `FREEZABLE_PARTS` that a parameter belongs to."""
    module, *rest = parameter_name.split(".")
    if module == "transformer":
        return "time" if model.transformer.layers[int(rest[1])].self_attn.is_temporal else "space"
    latents = dict.fromkeys(("latent_embed", "latent_head", "state_coder"), "latents")
    return (latents | {"action_encoder": "actions"}).get(module, "control")


def has_adapter(model: nn.Module) -> bool:
    """Return whether a model carries a PEFT adapter, which is then all that is trained."""
    return hasattr(model, "peft_config")

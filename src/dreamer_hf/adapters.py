"""Adapters of a world: LoRA (arXiv 2106.09685) on its dynamics model, with or without a new action encoder.

An adapter is a folder in PEFT's format, as `PreTrainedModel.load_adapter` reads it. One for other actions than the
world's brings an action encoder of its own along, and in `ACTIONS_FILE` the config values that belong to it.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from transformers.utils import cached_file

from .data.files import read_json, write_json
from .modeling_dreamer_dynamics import DreamerActionEncoder, DreamerDynamicsModel
from .modeling_dreamer_world import DreamerWorldModel

ACTIONS_FILE = "action_config.json"
ACTION_KEYS = (
    *("action_dim", "action_num_classes", "action_offset", "action_stats", "action_names", "action_units", "fps"),
)
"""The config values that follow the data of an action encoder."""
ADAPTED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
"""What LoRA changes: every matrix of every transformer layer."""


def check_peft() -> None:
    """Raises a ValueError where PEFT is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need the package peft: pip install 'dreamer_hf[lora]'.")


@torch.no_grad()
def replace_action_encoder(dynamics: DreamerDynamicsModel, actions: dict) -> None:
    """Gives a model a new action encoder, for other actions, in place.

    All else stays, also the tokens of a frame without an action: unlabelled frames are as they were.

    Args:
        dynamics: the model; its config changes, too.
        actions: values of `ACTION_KEYS`; what is left out falls back to the config class's default.

    Raises:
        StrictDataclassError: values that contradict each other.
    """
    config = dynamics.config
    defaults = type(config)()
    for key in ACTION_KEYS:
        setattr(config, key, actions.get(key, getattr(defaults, key)))
    config.validate()
    encoder = DreamerActionEncoder(config).apply(dynamics._init_weights)
    encoder.action_tokens.copy_(dynamics.action_encoder.action_tokens)
    for parameter in encoder.parameters():  # not `encoder.to`: the statistics stay in float32
        parameter.data = parameter.data.to(dynamics.dtype)
    dynamics.action_encoder = encoder.train(dynamics.training).to(dynamics.device)


def add_lora(
    dynamics: DreamerDynamicsModel, rank: int, alpha: int, base: str, train_action_encoder: bool = False
) -> None:
    """Adds a new LoRA adapter to a model, in place; from then on nothing else is trained.

    Args:
        dynamics: the model.
        rank: of the changes.
        alpha: the changes are scaled by `alpha / rank`.
        base: what the adapter says about the model that it belongs to.
        train_action_encoder: the adapter holds the action encoder, too, whole.

    Raises:
        ValueError: PEFT is not installed.
    """
    check_peft()
    from peft import LoraConfig

    whole = ["action_encoder"] if train_action_encoder else None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED, modules_to_save=whole)
    dynamics.add_adapter(config)
    config.base_model_name_or_path = base


def save_adapter(dynamics: DreamerDynamicsModel, folder: str | Path, state_dict: dict[str, torch.Tensor]) -> None:
    """Writes the adapter of a model, and nothing of the model under it, into a folder.

    Args:
        state_dict: the weights of the whole model, adapter included.
    """
    with warnings.catch_warnings():  # PEFT looks at the base's config for a vocabulary: there is none
        warnings.filterwarnings("ignore", message="Could not find a config file")
        dynamics.save_pretrained(folder, state_dict=dict(state_dict))
    if dynamics.peft_config[dynamics.active_adapters()[0]].modules_to_save:
        write_json(Path(folder) / ACTIONS_FILE, {key: getattr(dynamics.config, key) for key in ACTION_KEYS})


def load_adapter(world: DreamerWorldModel, path_or_repo: str | Path) -> None:
    """Puts an adapter onto the dynamics model of a world, in place; its actions may be others than the world's.

    Raises:
        ValueError: there is no adapter, it is of another world's sizes (the world is then of no use any more), or PEFT
            is not installed.
    """
    check_peft()
    path = str(path_or_repo)
    try:
        actions = cached_file(path, ACTIONS_FILE, _raise_exceptions_for_missing_entries=False)
        if actions is not None:
            replace_action_encoder(world.dynamics, read_json(actions))
        loaded = world.dynamics.load_adapter(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"cannot load an adapter from {path!r} onto this world: {reason}") from error
    if loaded.missing_keys or loaded.unexpected_keys:
        raise ValueError(
            f"the adapter {path!r} was trained on a world of other sizes: load it onto the one it was trained on."
        )
    world.config.dynamics_config = world.dynamics.config


__all__ = ["add_lora", "load_adapter", "replace_action_encoder", "save_adapter"]

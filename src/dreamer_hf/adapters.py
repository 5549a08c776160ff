"""Adapters of a world: LoRA (arXiv 2106.09685) on its dynamics model, with or without a new action encoder.

An adapter is a folder in PEFT's format, which `PreTrainedModel.load_adapter` reads. If its actions differ from the
world's, the folder also holds a whole action encoder, and in `ACTIONS_FILE` the config values of these actions.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import cached_file

from .data.files import first_line, read_json, write_json
from .modeling_dreamer_dynamics import DreamerActionEncoder, DreamerDynamicsModel
from .modeling_dreamer_world import DreamerWorldModel

ACTIONS_FILE = "action_config.json"
ACTION_KEYS = (
    *("action_dim", "action_num_classes", "action_offset", "action_stats", "action_names", "action_units"),
    *("relative_actions", "fps"),
)
"""The config values that describe the actions of an action encoder."""
ADAPTER_CONFIG = "adapter_config.json"
IMPORTING_FIELDS = ("auto_mapping", "megatron_config")
"""Fields of PEFT's config with which it imports a module that the config names; no adapter of a world has them."""
UNREADABLE = (
    *(OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError),
    *(TypeError, AttributeError, KeyError, IndexError, ZeroDivisionError, OverflowError, RecursionError),
)
"""What PEFT, safetensors and the config raise for damaged files; PEFT does not check the types of its fields."""
ADAPTED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
"""The modules that LoRA changes: every matrix of every transformer layer."""


def check_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        ValueError: if it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need the package peft: pip install 'dreamer_hf[lora]'.")


@torch.no_grad()
def replace_action_encoder(dynamics: DreamerDynamicsModel, actions: dict) -> None:
    """Replace the action encoder of a model, in place, by a new one for other actions.

    The tokens of a frame without an action stay, so the model treats such frames as before.

    Args:
        dynamics: the model, whose config changes, too.
        actions: values of `ACTION_KEYS`; missing ones get the default of the config class.

    Raises:
        StrictDataclassError: if the values are invalid.
    """
    config = dynamics.config
    defaults = type(config)()
    for key in ACTION_KEYS:
        setattr(config, key, actions.get(key, getattr(defaults, key)))
    config.validate()
    encoder = DreamerActionEncoder(config).apply(dynamics._init_weights)
    encoder.action_tokens.copy_(dynamics.action_encoder.action_tokens)
    for parameter in encoder.parameters():  # `encoder.to` would also convert the statistics, which stay in float32
        parameter.data = parameter.data.to(dynamics.dtype)
    dynamics.action_encoder = encoder.train(dynamics.training).to(dynamics.device)


def add_lora(
    dynamics: DreamerDynamicsModel, rank: int, alpha: int, base: str, train_action_encoder: bool = False
) -> None:
    """Add a new LoRA adapter to a model, in place; from then on only the adapter is trained.

    Args:
        dynamics: the model.
        rank: rank of the changes.
        alpha: scale of the changes, which are multiplied by `alpha / rank`.
        base: folder or Hub repository of the model, by which the adapter names it. A folder is named "./NAME", without
            the way to it: PEFT would look for a bare name on the Hub.
        train_action_encoder: whether the adapter also holds the whole action encoder. Defaults to False.

    Raises:
        ValueError: if PEFT is not installed.
    """
    check_peft()
    from peft import LoraConfig

    whole = ["action_encoder"] if train_action_encoder else None
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED, modules_to_save=whole)
    dynamics.add_adapter(config)
    is_folder = Path(base).exists() or "/" not in base
    config.base_model_name_or_path = f"./{Path(base).resolve().name}" if is_folder else base


def save_adapter(dynamics: DreamerDynamicsModel, folder: str | Path, state_dict: dict[str, torch.Tensor]) -> None:
    """Save the adapter of a model, without the model, into a folder.

    Args:
        dynamics: the model.
        folder: where to write.
        state_dict: weights of the whole model, including the adapter.
    """
    with warnings.catch_warnings():  # PEFT looks for the size of a vocabulary in the config of the base
        warnings.filterwarnings("ignore", message="Could not find a config file")
        dynamics.save_pretrained(folder, state_dict=dict(state_dict))
    if dynamics.peft_config[dynamics.active_adapters()[0]].modules_to_save:
        write_json(Path(folder) / ACTIONS_FILE, {key: getattr(dynamics.config, key) for key in ACTION_KEYS})


def _refuse_imports(path: str) -> None:
    """Refuse the fields of `adapter_config.json` that name modules, which PEFT would import."""
    file = cached_file(path, ADAPTER_CONFIG, _raise_exceptions_for_missing_entries=False)
    named = [] if file is None else [name for name in IMPORTING_FIELDS if read_json(file).get(name) is not None]
    if named:
        raise ValueError(f"{named[0]} in its {ADAPTER_CONFIG} names a module to import: remove it.")


def load_adapter(world: DreamerWorldModel, path_or_repo: str | Path) -> None:
    """Load an adapter onto the dynamics model of a world, in place; its actions may differ from the world's.

    Args:
        world: the world; it cannot be used any more if the adapter is refused.
        path_or_repo: folder or Hub repository of the adapter.

    Raises:
        ValueError: if there is no adapter, it was trained on a world of other sizes, or PEFT is not installed.
    """
    check_peft()
    path = str(path_or_repo)
    try:
        actions = cached_file(path, ACTIONS_FILE, _raise_exceptions_for_missing_entries=False)
        if actions is not None:
            replace_action_encoder(world.dynamics, read_json(actions))
        _refuse_imports(path)
        loaded = world.dynamics.load_adapter(path)
    except UNREADABLE as error:
        reason = first_line(error.__cause__ or error) if isinstance(error, StrictDataclassError) else first_line(error)
        raise ValueError(f"cannot load an adapter from {path!r} onto this world: {reason}") from error
    if loaded.missing_keys or loaded.unexpected_keys:
        raise ValueError(
            f"the adapter {path!r} was trained on a world of other sizes: load it onto the one it was trained on."
        )
    world.config.dynamics_config = world.dynamics.config


__all__ = ["add_lora", "load_adapter", "replace_action_encoder", "save_adapter"]

"""What every configuration shares: reading and writing `config.json`, and checks of values."""

from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig

DIGESTS_KEY = "weights_sha256"
"""Where `config.json` holds the digests of the weight files; they belong to the folder, not to the config."""

MAX_REASON = 300
"""Characters of a message that may quote a whole file."""

LARGEST = 1e30
"""Numbers beyond this are refused: they would overflow in float32."""


def check_integers(config: PreTrainedConfig, largest: dict[str, int], smallest: int = 1) -> None:
    """Check that fields of a config are integers from `smallest` to the given largest values.

    Raises:
        ValueError: if one is not.
    """
    for name, limit in largest.items():
        value = getattr(config, name)
        if not smallest <= value <= limit:
            raise ValueError(f"expected {name} to be an int from {smallest} to {limit}, got {value}.")


def check_positive(name: str, *values: float | None) -> None:
    """Check that numbers are positive and finite; None is left out.

    Raises:
        ValueError: if one is not.
    """
    for value in values:
        if value is not None and not 0 < value < LARGEST:
            raise ValueError(f"expected {name} to be positive and finite, got {value}.")


def check_finite(name: str, values: list[float | int]) -> None:
    """Check that numbers are finite.

    Raises:
        ValueError: if one is not.
    """
    if not all(-LARGEST < value < LARGEST for value in values):
        raise ValueError(f"expected {name} to be finite numbers, got {values}.")


def check_components(config: PreTrainedConfig, size_field: str, lists: list[str], stats_field: str) -> None:
    """Check that lists of a config have one entry for each component of a vector, and that its statistics can be.

    Args:
        config: the config.
        size_field: field that holds the number of components.
        lists: fields that hold None or a list of one entry each.
        stats_field: field that holds None, or lists by name of statistic, among them "mean" and "std".

    Raises:
        ValueError: if one does not fit.
    """
    size, stats = getattr(config, size_field), getattr(config, stats_field)
    entries = {name: getattr(config, name) for name in lists}
    entries |= {f"{stats_field}[{key!r}]": values for key, values in (stats or {}).items()}
    for name, values in entries.items():
        if values is not None and len(values) != size:
            raise ValueError(f"{name} has {len(values)} entries: give one for each of {size_field}={size}.")
    if stats is None:
        return
    if not {"mean", "std"} <= set(stats):
        raise ValueError(f"{stats_field} has {sorted(stats)}: give at least 'mean' and 'std'.")
    for key, values in stats.items():
        check_finite(f"{stats_field}[{key!r}]", values)
    if min(stats["std"], default=0) < 0:
        raise ValueError(f"expected {stats_field}['std'] to be at least 0, got {stats['std']}.")


class DreamerConfigMixin:
    """Reading and writing of configs: refuse the config of another class, and save nothing that names the folder."""

    keys_to_ignore_at_inference = ["past_key_values"]

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """Read `config.json`; see the base class, which reads that of any model, whose weights would then be random.

        Raises:
            ValueError: if it is the config of another kind of model, or not a JSON object.
        """
        try:
            values, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
            found = values.get("model_type", cls.model_type)
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"config.json of {pretrained_model_name_or_path} does not hold a JSON object: save the model again."
            ) from error
        if found != cls.model_type:
            hint = f"give the folder or repository of a {cls.model_type}"
            part = cls.model_type.removeprefix("dreamer_")
            if cls.model_type == "dreamer_agent" and found == "dreamer_world":
                hint = "an agent for a world is made with DreamerAgentModel.from_world_pretrained"
            elif found == "dreamer_world":
                hint = f"load it with DreamerWorldModel.from_pretrained and take its .{part}"
            elif found == "dreamer_agent":
                path = part if part == "world" else f"world.{part}"
                hint = f"load it with DreamerAgentModel.from_pretrained and take its .{path}"
            raise ValueError(f"{pretrained_model_name_or_path} holds a {found}, not a {cls.model_type}: {hint}.")
        return values, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Make a config from a dictionary; see the base class.

        Raises:
            ValueError: if a value is invalid.
        """
        values = {name: value for name, value in config_dict.items() if name != DIGESTS_KEY}
        try:
            return super().from_dict(values, **kwargs)
        except StrictDataclassError as error:
            reason = str(error.__cause__ or error)
            reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."
            raise ValueError(f"invalid {cls.model_type} config: {reason}") from error
        except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as error:
            # The base class does not check its own fields, such as `id2label`, before it uses them.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"invalid {cls.model_type} config: a field has the wrong type ({reason}).") from error

    def __post_init__(self, **kwargs):
        dtype = kwargs.get("torch_dtype") if self.dtype is None else self.dtype
        if isinstance(dtype, str):
            import torch

            if not isinstance(getattr(torch, dtype, None), torch.dtype):
                raise ValueError(f"expected dtype to be the name of a torch dtype such as 'float32', got {dtype!r}.")
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict:
        """Return the values as a dictionary; see the base class.

        The path that the config was loaded from is left out (transformers would write those of a world's parts), and
        so is `auto_map` unless code is saved, because the files that it names stayed behind.
        """
        values = super().to_dict()
        values.pop("_name_or_path", None)
        auto_map = values.pop("auto_map", None)
        if auto_map and self.is_remote_code():
            # transformers takes every class named *Tokenizer* for one of text, and writes (slow, fast) in its place.
            flat = {auto: name if isinstance(name, str) else name[0] for auto, name in auto_map.items()}
            values["auto_map"] = flat
        return values


__all__ = ["DreamerConfigMixin", "check_components", "check_finite", "check_integers", "check_positive"]

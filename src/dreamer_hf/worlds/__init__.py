"""The worlds that ship with the package: a folder each, as `DreamerWorldModel.save_pretrained` writes it."""

import os
from pathlib import Path

_FOLDER = Path(__file__).parent


def shipped_worlds() -> list[str]:
    """Return the names of the shipped worlds, in alphabetical order."""
    return sorted(config.parent.name for config in _FOLDER.glob("*/config.json"))


def shipped_world(name: str = "pusht-tiny") -> Path:
    """Return the folder of a shipped world, for `from_pretrained` and `load_start_frames`.

    Raises:
        ValueError: The package ships no world of that name.
    """
    if name not in shipped_worlds():
        raise ValueError(f"expected the name of a shipped world ({', '.join(shipped_worlds())}), got {name!r}.")
    return _FOLDER / name


def resolve_model(model: str | os.PathLike) -> str:
    """Return the folder or Hub repository that `model` stands for.

    A local folder comes first, then the name of a shipped world. Anything else is a Hub repository and stays
    unchanged.
    """
    model = str(model)
    return str(_FOLDER / model) if model in shipped_worlds() and not os.path.exists(model) else model

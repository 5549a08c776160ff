"""Options as dataclasses, the one source of a command's flags and of its help; and the options of every command that
loads a world. Imports nothing that takes time."""

import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields


def option(
    default=MISSING,
    *,
    help: str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    group=None,
    positional: bool = False,
):
    """Return a dataclass field that is also a flag.

    Args:
        default: default value; without one, the flag is required.
        help: one sentence; the default value is added to it.
        choices: allowed values.
        metavar: name of the value in the help.
        group: heading under which the help lists the flag.
        positional: whether the value is given without a flag.
    """
    metadata = {"help": help, "choices": choices, "metavar": metavar, "group": group, "positional": positional}
    return field(default=default, metadata=metadata)


def ray_option(group=None):
    """Return the flag that spreads a command's work over a Ray cluster."""
    text = "Spread the work over a Ray cluster: `auto` for the one that this machine belongs to, HOST:PORT for that "
    text += "head node, `local` for the cores of this machine."
    return option(None, metavar="auto|local|HOST:PORT", group=group, help=text)


@dataclass(frozen=True)
class Flag:
    """A flag that sets one field of an options class.

    Attributes:
        name: name of the field; the flag is `--name`.
        type: bool (a switch that takes no value), int, float or str.
        many: whether it takes one or more values, which become a tuple.
        default: default value, or `dataclasses.MISSING`.
        help, choices, metavar, group, positional: as in `option`.
    """

    name: str
    type: type
    many: bool
    default: object
    help: str
    choices: Sequence[str] | None
    metavar: str | None
    group: str | None
    positional: bool


def flags_of(options: type) -> list[Flag]:
    """Return the flags of an options class, those of its base classes first."""
    hints = typing.get_type_hints(options)
    return [
        Flag(each.name, *_value_type(hints[each.name]), each.default, **each.metadata)
        for each in fields(options)
        if each.metadata
    ]


def _value_type(hint) -> tuple[type, bool]:
    """Return the type of a flag's value, and whether there are several: `int | None` is (int, False)."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


ENGINES = ("auto", "torch", "onnx")
"""What can compute dreams; see `engines`."""


DEFAULT_WORLD = "pusht-tiny"
"""Name of the world that commands use unless another one is named."""


@dataclass
class WorldSource:
    """Which world, and where its dreams begin."""

    model: str = option(
        DEFAULT_WORLD, help="World: the name of one that ships with the package, a folder, or a Hub repository."
    )
    adapter: str | None = option(None, help="Folder or Hub repository of an adapter for the world.")
    start: str | None = option(
        None,
        help="Where dreams begin: a shard folder, a LeRobot dataset, a video or an image. "
        "Defaults to the start frames saved with the adapter or the world.",
    )
    image_key: str | None = option(None, help="Camera to use if --start is a LeRobot dataset with several.")
    action_key: str = option("action", help="Feature that holds the actions if --start is a LeRobot dataset.")


@dataclass
class WorldOptions(WorldSource):
    """Which world to load, where its dreams begin, and how it runs."""

    num_inference_steps: int | None = option(
        None, help="Denoising steps per frame, a power of two. Defaults to what is saved with the world."
    )
    engine: str = option(
        "auto",
        choices=ENGINES,
        help="What computes the dreams: PyTorch, or ONNX Runtime, which is faster on a CPU and needs no compiling. "
        "auto: ONNX Runtime on a CPU if it is installed, otherwise PyTorch.",
    )
    int8: bool = option(False, help="Load the weights as 8-bit integers, which takes a quarter of the memory.")
    device: str | None = option(None, help="Device to run on: cpu, cuda, ... Defaults to the GPU if there is one.")
    threads: int | None = option(
        None, help="CPU threads to use. Defaults to what suits the world, found by a short measurement."
    )


__all__ = ["DEFAULT_WORLD", "Flag", "WorldOptions", "flags_of", "option"]

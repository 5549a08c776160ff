"""What a player can choose, and of that what whoever serves a world can choose, too."""

import argparse
from dataclasses import dataclass

CONTROLS = ("auto", "direct", "target")
PATTERNS = ("circle", "sweep")
INPUTS = ("joystick", "keyboard", "mouse", "script")
ACTION_FORMS = ("auto", "absolute", "relative")


@dataclass
class WorldOptions:
    """Which world is dreamt, where from and how; `examples/play.py --help` explains each."""

    model: str
    adapter: str | None = None
    start: str | None = None
    image_key: str | None = None
    num_inference_steps: int = 4
    int8: bool = False
    device: str | None = None


def add_world_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each of `WorldOptions`."""
    add = parser.add_argument
    add("--model", required=True, help="folder or Hub repository of a DreamerWorldModel")
    add("--adapter", help="folder or Hub repository of an adapter for the world; see docs/adapting.md")
    add(
        "--start",
        help="shard folder, LeRobot dataset, video or image to begin from; default: the adapter's or world's own starts",
    )
    add("--image_key", help="camera of a LeRobot dataset given as --start that has several")
    add("--num_inference_steps", type=int, default=4, help="denoising steps a frame, a power of two; default: 4")
    add("--int8", action="store_true", help="weights as 8-bit integers, a quarter of the memory; see docs/speed.md")
    add("--device", help="cpu, cuda, ...; default: the GPU if there is one")


@dataclass
class PlayOptions(WorldOptions):
    """What a player chooses; `examples/play.py --help` explains each."""

    input: str | None = None
    script: str | None = None
    control: str = "auto"
    invert: tuple[int, ...] = ()
    record: str | None = None
    record_dataset: str | None = None
    compare: bool = False
    actions: str = "auto"
    compile: bool = False
    headless: bool = False
    steps: int | None = None
    seed: int = 0
    scale: int | None = None

    def check(self) -> None:
        """Raises a ValueError for options that exclude each other."""
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps {self.steps} dreams nothing: give at least 1.")
        if self.scale is not None and self.scale < 1:
            raise ValueError(f"--scale {self.scale} shows nothing: give at least 1.")
        if self.script and self.input not in (None, "script"):
            raise ValueError(f"--script and --input {self.input} exclude each other: choose one.")
        if self.compare and self.start:
            raise ValueError("--compare begins where the simulator does: leave out --start.")
        if self.actions != "auto" and not self.compare:
            raise ValueError("--actions tells the simulator what actions mean: add --compare, or leave it out.")
        if self.headless and self.input == "mouse":
            raise ValueError("a mouse needs a window to point at: leave out --headless or choose another --input.")
        if self.headless and self.steps is None and self.script in (None, *PATTERNS):
            raise ValueError("--headless has no end here: add --steps N, or a --script file, which ends by itself.")

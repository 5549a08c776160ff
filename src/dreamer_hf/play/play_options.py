"""The options of playing a world. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import DEFAULT_WORLD, WorldOptions, option

CONTROLS = ("auto", "direct", "target")
PATTERNS = ("circle", "sweep")
INPUTS = ("joystick", "keyboard", "mouse", "script")
ACTION_FORMS = ("auto", "absolute", "relative")


@dataclass
class PlayOptions(WorldOptions):
    """What can be chosen when playing a world."""

    agent: str | None = option(
        None,
        group="agent",
        help="Agent that plays in its world: a folder or Hub repository. Tab hands over between it and you.",
    )
    task: str = option("0", group="agent", help="What the agent is to do: number or name of a task.")
    deterministic: bool = option(
        False, group="agent", help="The agent takes the most likely action instead of drawing one."
    )
    compare: bool = option(
        False,
        group="comparison",
        help="Show the gym-pusht simulator next to the dream, from the same state and with the same actions.",
    )
    actions: str = option(
        "auto",
        choices=ACTION_FORMS,
        group="comparison",
        help="Whether the world's actions are targets (absolute) or differences between targets (relative); "
        "auto: as the world says or, if it does not, as its statistics suggest.",
    )
    input: str | None = option(
        None,
        choices=INPUTS,
        group="input",
        help="Input device. Defaults to a joystick if one is plugged in, otherwise to the keyboard.",
    )
    script: str | None = option(
        None,
        group="input",
        help="Actions to play: a .npy or .csv file with one row of raw actions per frame, or a pattern "
        f"({' or '.join(PATTERNS)}).",
    )
    control: str = option(
        "auto",
        choices=CONTROLS,
        group="input",
        help="How the input becomes an action; direct: the stick is the action; target: the stick moves the action; "
        "auto: what suits the world.",
    )
    invert: tuple[int, ...] = option((), group="input", metavar="DIM", help="Action dimensions to invert.")
    record: str | None = option(None, group="recording", metavar="FILE.mp4", help="Record the dream as a video.")
    record_dataset: str | None = option(
        None, group="recording", metavar="FOLDER", help="Record the dream as a LeRobotDataset."
    )
    headless: bool = option(
        False,
        group="run",
        help="Play without a window and print the frame rate. Plays a script unless --input names a device.",
    )
    compile: bool = option(
        False, group="run", help="Compile the model first: takes minutes, and at least doubles the frame rate."
    )
    steps: int | None = option(None, group="run", help="Number of frames to play. Defaults to playing until you quit.")
    trust: bool = option(
        False,
        group="run",
        help="Show, and record with --record_dataset, how far each frame can be believed. Costs a second dream and an "
        "encoder pass, and needs the trust.json that dreamer trust saves with the world.",
    )
    seed: int = option(0, group="run", help="Seed of the noise, and of the simulator with --compare.")
    scale: int | None = option(
        None, group="run", help="Screen pixels per dreamed pixel. Defaults to an image of about 576 pixels."
    )

    def check(self) -> None:
        """Raise a ValueError for values that are out of range and for options that cannot be combined."""
        for name in ("steps", "scale"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected a positive int for --{name}, got {value}.")
        if self.agent is None and (self.task != "0" or self.deterministic):
            raise ValueError("--task and --deterministic are for an agent: add --agent, or leave them out.")
        if self.agent is not None:
            self._check_agent()
        if self.script and self.input not in (None, "script"):
            raise ValueError(f"--script and --input {self.input} cannot be combined: choose one.")
        if self.compare and self.start:
            raise ValueError("--compare starts where the simulator does: leave out --start.")
        if self.actions != "auto" and not self.compare:
            raise ValueError("--actions is for the simulator: add --compare, or leave out --actions.")
        if self.headless and self.input == "mouse":
            raise ValueError("a mouse needs a window to point at: leave out --headless or choose another --input.")
        if self.headless and self.steps is None and (self.agent is not None or self.script in (None, *PATTERNS)):
            raise ValueError("--headless would never end: add --steps N, or a --script file, which ends by itself.")

    def _check_agent(self) -> None:
        if self.model != DEFAULT_WORLD:
            raise ValueError("an agent brings its world: leave out --model, or leave out --agent.")
        if self.adapter or self.int8:
            raise ValueError("an agent is played as it was trained: leave out --adapter and --int8.")
        if self.engine == "onnx":
            raise ValueError("agents run on PyTorch: leave out --engine onnx.")

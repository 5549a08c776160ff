"""A session built from a player's options, played to its end and put away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..action_space import ActionSpace
from ..loading import load_world, load_world_and_starts
from ..modeling_dreamer_world import DreamerWorldModel
from ..pusht.compare import RealPushT, SideBySideRecorder
from ..rollout import DreamerRollout
from ..start_frames import StartFrames
from .actions import make_control
from .dataset_recorder import DatasetRecorder
from .headless import run_headless
from .options import PlayOptions
from .recorder import VideoRecorder
from .session import DEFAULT_FPS, PlaySession, Recorder
from .sources import ActionSource, DeviceActions, InputDevice, load_script


@dataclass
class Game:
    """What a session is made of, but for the hand.

    Attributes:
        options: what the player chose.
        world, starts: what is dreamt, and where dreams begin.
        space: of the world's actions.
        real: the simulator that dreams are compared with, if they are.
        recorders: of the session.
        rollout: a compiled one for all dreams, if that was asked for; `compile` makes it.
    """

    options: PlayOptions
    world: DreamerWorldModel
    starts: StartFrames
    space: ActionSpace
    real: RealPushT | None
    recorders: list[Recorder]
    rollout: DreamerRollout | None = None

    def compile(self) -> None:
        """Compiles the passes of a dream, if that was asked for: minutes, so all that can be refused comes before.

        Raises:
            ValueError: this machine cannot compile.
        """
        if not self.options.compile:
            return
        frames = (self.starts[0].pixel_values_videos / 255).to(self.world.device, self.world.dtype)
        self.rollout = self.world.start_rollout(frames, num_inference_steps=self.options.num_inference_steps)
        try:
            self.rollout.compile()
        except RuntimeError as error:  # PyTorch's words vary, and the first line says most
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"--compile does not work here ({reason}): install a C++ compiler such as g++, or leave it out."
            ) from error

    @contextmanager
    def session(self, source: ActionSource) -> Iterator[PlaySession]:
        """A session whose recordings are finished, and named to the player, however it ends."""
        options = self.options
        try:
            with PlaySession(
                self.world,
                self.starts,
                source,
                self.recorders,
                num_inference_steps=options.num_inference_steps,
                seed=options.seed,
                companion=self.real,
                rollout=self.rollout,
            ) as session:
                yield session
        finally:
            for recorder in self.recorders:
                if recorder.path.exists():
                    print(f"recorded to {recorder.path}")


def _load(options: PlayOptions) -> Game:
    """The game that the options describe; dreams that are compared with the simulator begin where it does."""
    if options.compare:
        world = load_world(options.model, options.device, options.adapter, options.int8)
        relative = None if options.actions == "auto" else options.actions == "relative"
        real = RealPushT(world.config, relative, options.seed)
        starts = real.starts
    else:
        (world, starts), real = load_world_and_starts(options), None
    space = ActionSpace.from_config(world.config.dynamics_config)
    if any(index not in range(space.size) for index in options.invert):
        raise ValueError(
            f"--invert {options.invert} names no action dimension: use numbers from 0 to {space.size - 1}."
        )
    return Game(options, world, starts, space, real, _recorders(options, world.config.dynamics_config, real))


def play_headless(options: PlayOptions) -> None:
    """Dreams without a window and prints the frame rate; scripted, unless the options name a device."""
    game = _load(options)
    if options.input in ("joystick", "keyboard"):
        from .devices import make_poll, open_device

        device = open_device(options.input, game.space)
        source, poll = _hand(game, device), make_poll(device)
    else:
        source, poll = load_script(options.script, game.space), None
    game.compile()
    with game.session(source) as session:
        report = run_headless(session, options.steps, poll)
        print(f"{report} (the world's own rate is {session.fps:g})")
    if game.real is not None:
        print(game.real.summary())


def play_in_window(options: PlayOptions) -> None:
    """Plays in a window on the display that is open already."""
    from .devices import open_device
    from .window import PlayWindow
    from .windowed import WindowedGame

    game = _load(options)
    scripted = options.script is not None or options.input == "script"
    source = load_script(options.script, game.space) if scripted else None
    game.compile()  # before there is a window, which would not answer meanwhile
    window = PlayWindow(
        game.world.config.tokenizer_config.frame_size,
        game.space,
        options.scale,
        title=f"Dream of {options.model}",
        captions=("dream",) if game.real is None else ("simulator", "dream"),
    )
    device = None if scripted else open_device(options.input, game.space, window.picture)
    try:
        with game.session(source or _hand(game, device)) as session:
            WindowedGame(session, window, device, options.steps).run()
    finally:
        window.close()


def _hand(game: Game, device: InputDevice) -> DeviceActions:
    fps = game.world.config.dynamics_config.fps or DEFAULT_FPS
    control = make_control(game.space, fps, game.options.control, device.pointer)
    return DeviceActions(device, control, game.options.invert)


def _recorders(options: PlayOptions, config, real: RealPushT | None) -> list[Recorder]:
    fps = float(config.fps or DEFAULT_FPS)
    recorders: list[Recorder] = []
    if options.record:
        beside = VideoRecorder(options.record, fps) if real is None else SideBySideRecorder(options.record, fps, real)
        recorders.append(beside)
    if options.record_dataset:
        space = ActionSpace.from_config(config)
        recorders.append(DatasetRecorder(options.record_dataset, space, fps, config.action_offset))
    return recorders

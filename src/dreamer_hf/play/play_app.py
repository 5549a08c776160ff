"""A game set up as its options say, and played in a window or without one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..dreams import Dream, Dreams
from ..engines.opening import open_world
from ..pacing import PacingClock
from ..trust import load_trust
from .action_sources import ActionSource, DeviceActions, load_script
from .controls import make_control
from .gauges import gauges_of
from .play_options import PlayOptions
from .recorders import DatasetRecorder, VideoRecorder
from .session import PlaySession, Recorder

if TYPE_CHECKING:
    from ..modeling_dreamer_agent import DreamerAgentModel
    from ..pusht.compare import RealPushT


@dataclass
class PlaySetup:
    """What a session is made of, except for the source of its actions.

    Attributes:
        options: what the player chose.
        dreams: of the world, with its start frames.
        dream: the dream to play, compiled if that was asked for; `prepare` begins it.
        simulator: what the dream is compared with, or None.
        recorders: of the session.
        agent: who plays, or None.
    """

    options: PlayOptions
    dreams: Dreams
    simulator: "RealPushT | None"
    recorders: list[Recorder]
    dream: Dream | None = None
    agent: "DreamerAgentModel | None" = None

    @classmethod
    def load(cls, options: PlayOptions) -> "PlaySetup":
        """Load what the options name.

        Raises:
            ValueError, OSError: it does not exist, or does not fit together.
        """
        agent = None
        if options.agent is not None:
            agent, starts, simulator = _load_agent(options)
            world = agent.world
        elif options.compare:
            world, starts, simulator = _load_with_simulator(options)
        else:
            (world, starts, note), simulator = open_world(options.model, options), None
            print(note)
        trust = load_trust(options.model) if options.trust else None
        dreams = Dreams(world, starts, options.num_inference_steps, trust)
        size = dreams.space.size
        if any(index not in range(size) for index in options.invert):
            raise ValueError(f"--invert {options.invert} names no action dimension: use numbers from 0 to {size - 1}.")
        return cls(options, dreams, simulator, _recorders(options, dreams, simulator), agent=agent)

    def prepare(self) -> None:
        """Begin the dream, choose the number of CPU threads, and compile the dream if that was asked for.

        Compiling takes minutes, so everything that can fail comes before.

        Raises:
            ValueError: this machine cannot compile.
        """
        (self.dream,) = self.dreams.begin([0], [self.options.seed])
        choice = self.dreams.choose_threads([self.dream], self.options.threads)
        if choice is not None and choice.available > 1:
            print(f"Using {choice}; --threads N sets another number.")
        if not self.options.compile:
            return
        try:
            self.dreams.rollout([self.dream]).compile()
        except RuntimeError as error:  # PyTorch's messages vary, and the first line says most
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"--compile does not work here ({reason}): install a C++ compiler such as g++, or leave it out."
            ) from error

    @contextmanager
    def session(self, source: ActionSource) -> Iterator[PlaySession]:
        """Yield a session; its recordings are finished, and their paths printed, however it ends.

        With an agent, the source only acts when the agent has handed over to it.
        """
        side_by_side = self.simulator
        if self.agent is not None:
            from .agent_player import AgentActions, AgentInSimulator

            task = int(self.options.task) if self.options.task.isdigit() else self.options.task
            settings = task, self.options.deterministic, self.options.seed
            source = AgentActions(self.agent, self.dream, source, *settings)
            side_by_side = side_by_side and AgentInSimulator(side_by_side, source)
        try:
            with PlaySession(
                self.dreams, source, self.recorders, self.options.seed, side_by_side, self.dream
            ) as session:
                yield session
        finally:
            for recorder in self.recorders:
                if recorder.path.exists():
                    print(f"recorded to {recorder.path}")

    def device_actions(self, device) -> DeviceActions:
        """Return the actions of a person who plays with an `InputDevice`."""
        control = make_control(self.dreams.space, self.dreams.fps, self.options.control, device.pointer)
        return DeviceActions(device, control, self.options.invert)


def _load_with_simulator(options: PlayOptions) -> tuple:
    """Return a world, and the simulator and its frames, from which the compared dreams begin."""
    from ..loading import load_world
    from ..pusht.compare import RealPushT

    world = load_world(options.model, options.device, options.adapter, options.int8)
    simulator = RealPushT(world.config, _are_relative(options), options.seed)
    return world, simulator.starts, simulator


def _load_agent(options: PlayOptions) -> tuple:
    """Return an agent, the start frames of its dreams, and with `--compare` the simulator, which gives the frames."""
    from ..loading import load_agent
    from ..start_frames import load_start_frames, read_start_frames

    agent = load_agent(options.agent, options.device)
    if options.compare:
        from ..pusht.compare import RealPushT

        simulator = RealPushT(agent.world.config, _are_relative(options), options.seed)
        return agent, simulator.starts, simulator
    if options.start:
        return agent, read_start_frames(options.start, agent.world.config, options.image_key, options.action_key), None
    return agent, load_start_frames(options.agent), None


def _are_relative(options: PlayOptions) -> bool | None:
    return None if options.actions == "auto" else options.actions == "relative"


def play_headless(setup: PlaySetup) -> None:
    """Dream without a window and print the frame rate; plays a script unless the options name a device."""
    options, space = setup.options, setup.dreams.space
    if options.input in ("joystick", "keyboard"):
        from .devices import open_device

        device = open_device(options.input, space)
        source, poll = setup.device_actions(device), _paced_poll(device, PacingClock(setup.dreams.fps))
    else:
        source, poll = load_script(options.script, space), None
    setup.prepare()
    with setup.session(source) as session:
        frames, seconds = run_headless(session, options.steps, poll)
        if setup.agent is not None:
            print(f"The agent expects a reward of {session.source.reward:.2f} for the last frame.")
    rate = frames / max(seconds, 1e-9)
    print(f"{frames} frames in {seconds:.2f} s: {rate:.1f} frames/s (the world's own rate is {setup.dreams.fps:g})")
    if setup.simulator is not None and setup.agent is None:  # an agent acts differently in the two
        print(setup.simulator.summary())


def run_headless(session: PlaySession, steps: int | None, poll: Callable[[], bool] | None = None) -> tuple[int, float]:
    """Advance a session, as fast as possible, and return the number of frames and the seconds that they took.

    Args:
        session: what is played.
        steps: frames to dream; None: until the source ends.
        poll: called before each frame; ends the run by returning False.
    """
    started = time.perf_counter()
    frames = 0
    with tqdm(total=steps, unit="frame", desc="dreaming") as bar:
        while frames != steps and (poll is None or poll()) and session.advance():
            frames += 1
            bar.update()
    return frames, time.perf_counter() - started


def play_in_window(setup: PlaySetup) -> None:
    """Play in a window on the display that is open already."""
    from .devices import open_device
    from .game import Game
    from .window import HELP, HELP_WITH_AGENT, PlayWindow

    options, dreams = setup.options, setup.dreams
    scripted = options.script is not None or options.input == "script"
    source = load_script(options.script, dreams.space) if scripted else None
    setup.prepare()  # before there is a window, which would not react meanwhile
    window = PlayWindow(
        dreams.frame_size,
        dreams.space,
        options.scale,
        title=f"Dream of {options.agent or options.model}",
        captions=("dream",) if setup.simulator is None else ("simulator", "dream"),
        state_space=gauges_of(dreams),
        help_lines=HELP if setup.agent is None else HELP_WITH_AGENT,
    )
    device = None if scripted else open_device(options.input, dreams.space, lambda: window.image)
    try:
        with setup.session(source or setup.device_actions(device)) as session:
            agent = None if setup.agent is None else session.source
            Game(session, window, device, options.steps, agent).run()
    finally:
        window.close()


def _paced_poll(device, clock: PacingClock) -> Callable[[], bool]:
    """Return a function that waits for the next frame, passes events on, and returns False once playing has to end."""
    from .devices import Command, pygame

    def poll() -> bool:
        clock.tick()
        commands = [Command.QUIT if e.type == pygame.QUIT else device.handle(e) for e in pygame.event.get()]
        if Command.UNPLUGGED in commands:
            print("The joystick was unplugged: the play ends here.")
        return not {Command.QUIT, Command.UNPLUGGED} & set(commands)

    return poll


def _recorders(options: PlayOptions, dreams: Dreams, simulator: "RealPushT | None") -> list[Recorder]:
    recorders: list[Recorder] = []
    if options.record:
        recorders.append(VideoRecorder(options.record, dreams.fps, simulator))
    if options.record_dataset:
        engine = dreams.engine
        about = dreams.space, dreams.fps, engine.action_offset, dreams.state_space, engine.camera_names
        recorders.append(DatasetRecorder(options.record_dataset, *about, has_trust=dreams.trust is not None))
    return recorders

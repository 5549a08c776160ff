"""Playing in a window, at the world's own frame rate."""

from ..pacing import PacingClock
from .commands import Command
from .pygame_import import pygame
from .session import PlaySession
from .sources import InputDevice
from .window import PlayWindow, View

PAUSED_WAIT_MS = 20
PAUSED = "Paused: space goes on, enter dreams one frame"
UNPLUGGED = "Joystick unplugged: plug it in again"
PLUGGED = "Joystick back: space or its A button goes on"
ENDED = "The script has ended: R begins again from the next start"


class WindowedGame:
    """The loop between a person and a session: events, one frame, a picture, the wait for the next frame.

    Args:
        session: what is played.
        window: shows it.
        device: hears the events; None for a script.
        steps: frames after which the game ends by itself; None: when the player quits.
    """

    def __init__(
        self,
        session: PlaySession,
        window: PlayWindow,
        device: InputDevice | None = None,
        steps: int | None = None,
    ):
        self.session = session
        self.window = window
        self.device = device
        self.steps_left = steps
        self.clock = PacingClock(session.fps)
        self.banner: str | None = None
        self.running = True
        self.unplugged = False

    @property
    def paused(self) -> bool:
        """Whether the dream waits for the player; then the banner says why."""
        return self.banner is not None

    def run(self) -> None:
        """Plays until the player quits or the steps are used up."""
        while self.running and self.steps_left != 0:
            self.tick()

    def tick(self) -> None:
        """One turn of the loop: waits, hears the player, dreams a frame unless paused, draws."""
        if self.paused:
            pygame.time.wait(PAUSED_WAIT_MS)
        else:
            self.clock.tick()
        for event in pygame.event.get():
            self._hear(event)
        if not self.paused:
            self._advance()
        self.window.draw(self._view())

    def _hear(self, event: "pygame.event.Event") -> None:
        command = self.window.command(event)
        if command is None and self.device is not None:
            command = self.device.handle(event)
        if command is not None:
            self._obey(command)

    def _obey(self, command: Command) -> None:
        if command is Command.QUIT:
            self.running = False
        elif command is Command.UNPLUGGED:
            self.unplugged, self.banner = True, UNPLUGGED
        elif command is Command.PLUGGED:
            self.unplugged, self.banner = False, PLUGGED
        elif command is Command.RESET:
            self.session.next_start()
            self.banner = None if self.banner == ENDED else self.banner
        elif command is Command.REWIND:
            self.session.rewind()
        elif not self.unplugged:
            self._pause_or_step(command)

    def _pause_or_step(self, command: Command) -> None:
        if command is Command.STEP:
            self.banner = PAUSED
            self._advance()
        elif self.paused:
            self.banner = None
            self.clock.restart()
        else:
            self.banner = PAUSED

    def _advance(self) -> None:
        if not self.session.advance():
            self.banner = ENDED
        elif self.steps_left is not None:
            self.steps_left -= 1

    def _view(self) -> View:
        session, rate = self.session, self.clock.rate
        shown_rate = "--" if rate is None or self.paused else f"{rate:.1f}"
        status = (
            f"frame {session.step_index}    {shown_rate} of {session.fps:g} frames/s    "
            f"start {session.start_index + 1} of {len(session.starts)}"
        )
        labels = self.device.labels if self.device else ()
        beside = ()
        if session.companion is not None:
            beside, status = (session.companion.frame,), f"{status}    {session.companion.status()}"
        frames = (*beside, session.frame)
        return View(frames, session.last_action, status, labels, self.banner, bool(session.recorders))

"""Playing in a window, at the world's own frame rate."""

from typing import TYPE_CHECKING

from ..pacing import PacingClock
from .devices import Command, InputDevice, pygame
from .gauges import gauge_values
from .session import PlaySession
from .window import PlayWindow, View

if TYPE_CHECKING:
    from .agent_player import AgentActions

PAUSED_WAIT_MS = 20
PAUSED = "Paused: space continues, enter dreams one frame"
UNPLUGGED = "Joystick unplugged: plug it in again"
PLUGGED = "Joystick found: space or its A button continues"
ENDED = "The script has ended: R plays it again from the next start"


class Game:
    """The loop between a person and a session: events, one frame, drawing, waiting for the next frame.

    Args:
        session: what is played.
        window: shows it.
        device: gets the events that the window does not use; None for a script.
        steps: frames after which the game ends; None: when the player quits.
        agent: the source of the session's actions, if an agent takes turns with the player.
    """

    def __init__(
        self,
        session: PlaySession,
        window: PlayWindow,
        device: InputDevice | None = None,
        steps: int | None = None,
        agent: "AgentActions | None" = None,
    ):
        self.session = session
        self.agent = agent
        self.window = window
        self.device = device
        self.steps_left = steps
        self.clock = PacingClock(session.dreams.fps)
        self.banner: str | None = None
        self.running = True
        self.unplugged = False

    @property
    def paused(self) -> bool:
        """Whether the dream waits for the player; then the banner says why."""
        return self.banner is not None

    def run(self) -> None:
        """Play until the player quits or the steps are used up."""
        while self.running and self.steps_left != 0:
            self.tick()

    def tick(self) -> None:
        """Wait, handle events, dream a frame unless paused, and draw."""
        if self.paused:
            pygame.time.wait(PAUSED_WAIT_MS)
        else:
            self.clock.tick()
        for event in pygame.event.get():
            self._handle(event)
        if not self.paused:
            self._advance()
        self.window.draw(self._view())

    def _handle(self, event: "pygame.event.Event") -> None:
        command = self.window.handle(event)
        if command is None and self.device is not None:
            command = self.device.handle(event)
        if command is not None:
            self._execute(command)

    def _execute(self, command: Command) -> None:
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
        elif command is Command.HAND_OVER:
            if self.agent is not None:
                self.agent.hand_over()
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
        session, dream, rate = self.session, self.session.dream, self.clock.rate
        shown_rate = "--" if rate is None or self.paused else f"{rate:.1f}"
        status = (
            f"frame {dream.step}    {shown_rate} of {session.dreams.fps:g} frames/s    "
            f"start {dream.start + 1} of {len(session.dreams.starts)}    seed {dream.seed}"
        )
        frames = (dream.frame,)
        if session.side_by_side is not None:
            frames = (session.side_by_side.frame, dream.frame)
            status += f"    {session.side_by_side.status()}"
        labels = self.device.labels if self.device else ()
        actor = None
        if self.agent is not None:
            status += f"    reward {self.agent.reward:.2f}"
            actor = self.agent.actor
        gauges = gauge_values(dream)
        return View(frames, dream.action, status, labels, self.banner, bool(session.recorders), gauges, actor)


__all__ = ["ENDED", "PAUSED", "PLUGGED", "UNPLUGGED", "Game"]

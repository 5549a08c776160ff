"""The window: the dream enlarged, the action as bars, the frame rate, and the keys that command the session."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..action_space import ActionSpace
from .commands import Command
from .pygame_import import pygame

BACKGROUND, PANEL, TRACK = (18, 20, 24), (28, 31, 37), (52, 57, 66)
TEXT, DIM, ACCENT, ALERT = (232, 235, 240), (140, 147, 158), (92, 170, 255), (255, 92, 92)
AMBER = (255, 190, 70)
MARGIN, LINE, BAR_HEIGHT = 14, 26, 10
NAME_WIDTH, LABEL_WIDTH, VALUE_WIDTH = 164, 96, 74
PICTURE_SIDE, SMALL_PICTURE_SIDE, BARS_WIDTH = 576, 448, 520
MAX_BARS_BELOW = 4  # more than these stand beside the picture
HELP = ("space pause    enter one step    R next start", "backspace ten frames back    esc quit")
NO_DISPLAY = "there is no display to open a window on: play with --headless, or log in with a screen."
KEY_COMMANDS = {
    pygame.K_SPACE: Command.PAUSE,
    pygame.K_RETURN: Command.STEP,
    pygame.K_KP_ENTER: Command.STEP,
    pygame.K_r: Command.RESET,
    pygame.K_BACKSPACE: Command.REWIND,
    pygame.K_ESCAPE: Command.QUIT,
}


@dataclass(frozen=True)
class View:
    """What the window shows: the frame, the action that led to it, and words about them.

    Attributes:
        frames: uint8 (H, W, 3) RGB each, one for each caption of the window; the dream is the last.
        action: float32 (A,), raw.
        status: one line under the picture.
        labels: which control moves each of the first action dimensions.
        banner: one line that catches the eye: why the dream waits.
        recording: whether to show that a recording runs.
    """

    frames: Sequence[np.ndarray]
    action: np.ndarray
    status: str
    labels: Sequence[str] = ()
    banner: str | None = None
    recording: bool = False


def open_display() -> None:
    """Connects to the screen.

    Raises:
        ValueError: when there is none. `SDL_VIDEODRIVER=dummy` asks for a window that nobody sees.
    """
    asked_for = os.environ.get("SDL_VIDEODRIVER")
    needs_server = sys.platform == "linux" and not asked_for
    if needs_server and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(NO_DISPLAY)  # SDL would draw into memory, where nobody sees it
    try:
        pygame.display.init()
    except pygame.error as error:
        raise ValueError(NO_DISPLAY) from error
    if pygame.display.get_driver() in ("dummy", "offscreen") and not asked_for:
        pygame.display.quit()
        raise ValueError(NO_DISPLAY)


class PlayWindow:
    """One pygame window for picture, action bars and keys.

    Args:
        frame_size: height and width of a dreamt frame in pixels.
        space: the actions that the bars show.
        scale: screen pixels for each dreamt pixel; chosen to fill about 576 pixels if not given.
        title: of the window.
        help_lines: what the keys do, at the bottom.
        captions: of the pictures, from left to right; a picture alone needs none.
    """

    def __init__(
        self,
        frame_size: tuple[int, int],
        space: ActionSpace,
        scale: int | None = None,
        title: str = "",
        help_lines: Sequence[str] = HELP,
        captions: Sequence[str] = ("dream",),
    ):
        pygame.font.init()
        self.space = space
        self._help, self._captions = help_lines, captions
        wanted = PICTURE_SIDE if len(captions) == 1 else SMALL_PICTURE_SIDE
        scale = scale or max(1, wanted // max(frame_size))
        self._lay_out(*(side * scale for side in frame_size))
        pygame.display.set_caption(title or "Dreamer world")
        self._font = pygame.font.Font(None, 24)
        self._small_font = pygame.font.Font(None, 21)
        # As many decimals as give about four digits over each range.
        magnitude = np.ceil(np.log10(np.maximum(space.high - space.low, 1e-4)))
        self._decimals = np.clip(4 - magnitude, 0, 4).astype(int)

    def _lay_out(self, height: int, width_of_one: int) -> None:
        """Places the pictures of that size, the bars below or beside them, the status line, banner and help."""
        count = len(self._captions)
        pictures_width = count * width_of_one + (count - 1) * MARGIN
        first_top = MARGIN if count == 1 else MARGIN + LINE
        bars_height = self.space.size * LINE
        beside = self.space.size > MAX_BARS_BELOW
        width = pictures_width + BARS_WIDTH + 3 * MARGIN if beside else max(pictures_width, BARS_WIDTH) + 2 * MARGIN
        left = MARGIN if beside else (width - pictures_width) // 2
        self.pictures = [
            pygame.Rect(left + n * (width_of_one + MARGIN), first_top, width_of_one, height) for n in range(count)
        ]
        top = first_top + (max(height, bars_height) if beside else height) + MARGIN
        self._status_top = top + MARGIN // 2
        if beside:
            self._bars = pygame.Rect(self.picture.right + MARGIN, first_top, BARS_WIDTH, bars_height)
            below = self._status_top + LINE
        else:
            self._bars = pygame.Rect(MARGIN, self._status_top + LINE, width - 2 * MARGIN, bars_height)
            below = self._bars.bottom
        self._banner = pygame.Rect(MARGIN, below + 4, width - 2 * MARGIN, LINE + 2)
        self._help_top = self._banner.bottom + 8
        height = self._help_top + len(self._help) * LINE + 4
        self._panel = pygame.Rect(0, top, width, height - top)
        self.surface = pygame.display.set_mode((width, height))

    @property
    def picture(self) -> "pygame.Rect":
        """Where the dream is."""
        return self.pictures[-1]

    def command(self, event: "pygame.event.Event") -> Command | None:
        """The command that an event stands for, if it is one of the window's."""
        if event.type == pygame.QUIT:
            return Command.QUIT
        return KEY_COMMANDS.get(event.key) if event.type == pygame.KEYDOWN else None

    def draw(self, view: View) -> None:
        """Draws everything and shows it."""
        self.surface.fill(BACKGROUND)
        pygame.draw.rect(self.surface, PANEL, self._panel)
        for frame, picture, caption in zip(view.frames, self.pictures, self._captions, strict=True):
            self._draw_picture(frame, picture)
            if len(self._captions) > 1:
                self._write(caption, (picture.x, MARGIN), DIM)
        self._draw_status(view)
        for index in range(self.space.size):
            label = view.labels[index] if index < len(view.labels) else ""
            self._draw_bar(index, label, view.action)
        if view.banner:
            self._draw_banner(view.banner)
        for row, line in enumerate(self._help):
            self._write(line, (MARGIN, self._help_top + row * LINE), DIM, self._small_font)
        pygame.display.flip()

    def close(self) -> None:
        """Closes the window."""
        pygame.display.quit()

    def _draw_picture(self, frame: np.ndarray, place: "pygame.Rect") -> None:
        picture = pygame.image.frombuffer(np.ascontiguousarray(frame), frame.shape[1::-1], "RGB")
        # Whole multiples of a pixel without smoothing: what the world dreams is shown as it is.
        self.surface.blit(pygame.transform.scale(picture, place.size), place)

    def _draw_banner(self, words: str) -> None:
        """A strip that covers nothing of the dream, which a player pauses to look at, and a frame around it."""
        pygame.draw.rect(self.surface, AMBER, self.picture.inflate(8, 8), width=4)
        pygame.draw.rect(self.surface, AMBER, self._banner, border_radius=4)
        text = self._font.render(words, True, BACKGROUND)
        self.surface.blit(text, text.get_rect(center=self._banner.center))

    def _draw_status(self, view: View) -> None:
        self._write(view.status, (MARGIN, self._status_top), TEXT)
        if view.recording:
            left = self._panel.right - MARGIN - 36
            pygame.draw.circle(self.surface, ALERT, (left - 12, self._status_top + 8), 6)
            self._write("REC", (left, self._status_top), ALERT)

    def _draw_bar(self, index: int, label: str, action: np.ndarray) -> None:
        """Name, control, a track with the value filled in from where it rests, and the value."""
        left, top = self._bars.x, self._bars.y + index * LINE
        self._write(self.space.labels[index], (left, top), TEXT, max_width=NAME_WIDTH - 8)
        self._write(label, (left + NAME_WIDTH, top), DIM, self._small_font, max_width=LABEL_WIDTH - 8)
        track_left = left + NAME_WIDTH + LABEL_WIDTH
        track = pygame.Rect(track_left, top + 4, self._bars.right - VALUE_WIDTH - track_left, BAR_HEIGHT)
        pygame.draw.rect(self.surface, TRACK, track, border_radius=3)
        here, rest = (
            track.x + round(track.w * float(self.space.fraction(values)[index]))
            for values in (action, self.space.rest)
        )
        fill = pygame.Rect(min(here, rest), track.y, abs(here - rest), track.h)
        pygame.draw.rect(self.surface, ACCENT, fill, border_radius=3)
        pygame.draw.rect(self.surface, TEXT, (here - 1, track.y - 3, 3, track.h + 6), border_radius=1)
        value = self._font.render(f"{action[index]:.{self._decimals[index]}f}", True, TEXT)
        self.surface.blit(value, (self._bars.right - value.get_width(), top))

    def _write(
        self,
        words: str,
        place: tuple[int, int],
        color: tuple[int, int, int],
        font: "pygame.font.Font | None" = None,
        max_width: int | None = None,
    ) -> None:
        text = (font or self._font).render(words, True, color)
        area = None if max_width is None else (0, 0, max_width, text.get_height())
        self.surface.blit(text, place, area)

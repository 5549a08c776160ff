"""The window: the dream enlarged, the action as bars, the frame rate, and the keys that control the session."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from ..action_space import ActionSpace
from ..state_space import StateSpace
from .devices import Command, pygame

BACKGROUND, PANEL, TRACK = (18, 20, 24), (28, 31, 37), (52, 57, 66)
TEXT, DIM, ACCENT, ALERT = (232, 235, 240), (140, 147, 158), (92, 170, 255), (255, 92, 92)
AMBER, GAUGE = (255, 190, 70), (110, 200, 140)
MARGIN, LINE, MIN_LINE = 14, 26, 15
BARS_WIDTH, MIN_BARS_WIDTH, MAX_NAME_SHARE = 520, 340, 0.55
IMAGE_SIDE, SMALL_IMAGE_SIDE = 576, 448
MAX_BARS_BELOW = 4
"""More bars than these are next to the image."""
DESKTOP_MARGIN = 64
"""Pixels of the desktop that a new window leaves free, for its title and the desktop's own bars."""
HELP_WITH_AGENT = (
    "space pause    enter one step    tab you or the agent    ",
    "R next start    backspace back    esc quit",
)
HELP = ("space pause    enter one step    R next start    ", "backspace ten frames back    esc quit")
NO_DISPLAY = "there is no display to open a window on: play with --headless, or log in with a screen."
KEY_COMMANDS = {
    pygame.K_SPACE: Command.PAUSE,
    pygame.K_RETURN: Command.STEP,
    pygame.K_KP_ENTER: Command.STEP,
    pygame.K_r: Command.RESET,
    pygame.K_BACKSPACE: Command.REWIND,
    pygame.K_ESCAPE: Command.QUIT,
    pygame.K_TAB: Command.HAND_OVER,
}


@dataclass(frozen=True)
class View:
    """What the window shows.

    Attributes:
        frames: uint8 (H, W, 3) RGB each, one for each caption of the window; the dream is the last.
        action: float32 (A,), the raw action that led to the frame.
        status: one line under the image.
        labels: the controls that move the first action dimensions.
        banner: one line that stands out: why the dream waits.
        recording: whether to show that a recording runs.
        state: float32 (S,), the state of the dream, for a window with gauges of it.
        actor: who acts, where an agent and a person take turns.
    """

    frames: Sequence[np.ndarray]
    action: np.ndarray
    status: str
    labels: Sequence[str] = ()
    banner: str | None = None
    recording: bool = False
    state: np.ndarray | None = None
    actor: str | None = None


@dataclass(frozen=True)
class Layout:
    """Where everything is in a window of `size` (width, height).

    Attributes:
        images: one rectangle for each caption.
        bars: rectangle of all bars.
        rows, columns, line: how the bars are arranged, and the height of one.
        panel: rectangle of everything under the images: the status at its top, then the bars if they are below,
            the banner, and the help.
    """

    size: tuple[int, int]
    images: list["pygame.Rect"]
    bars: "pygame.Rect"
    rows: int
    columns: int
    line: int
    panel: "pygame.Rect"
    banner: "pygame.Rect"


def lay_out(
    frame_size: tuple[int, int], num_images: int, num_bars: int, help_lines: int, scale: float, room: tuple[int, int]
) -> Layout:
    """Lay out a window for frames of `frame_size` (height, width), enlarged `scale` times.

    The layout is as small as possible, except that bars take the rest of the width of `room` (width, height). It
    may be larger than `room`: then choose a smaller scale.
    """
    height, width = (max(1, round(side * scale)) for side in frame_size)
    all_width = num_images * width + (num_images - 1) * MARGIN
    first_top = MARGIN if num_images == 1 else MARGIN + LINE
    below = num_bars <= MAX_BARS_BELOW
    help_lines = help_lines if below else min(1, help_lines)
    panel_height = MARGIN // 2 + LINE + (num_bars * LINE if below else 0) + LINE + 14 + help_lines * LINE + 4
    most_rows = num_bars if below else max(1, max(height, room[1] - first_top - MARGIN - panel_height) // MIN_LINE)
    columns = -(-num_bars // most_rows)
    rows = -(-num_bars // columns)
    line = LINE if below else min(LINE, max(MIN_LINE, height // rows))
    needed = BARS_WIDTH if columns == 1 else columns * MIN_BARS_WIDTH
    bars_width = max(needed, (room[0] - 2 * MARGIN) if below else (room[0] - all_width - 3 * MARGIN))
    total_width = (max(all_width, bars_width) if below else all_width + MARGIN + bars_width) + 2 * MARGIN
    left = (total_width - all_width) // 2 if below else MARGIN
    images = [pygame.Rect(left + n * (width + MARGIN), first_top, width, height) for n in range(num_images)]
    top = first_top + (height if below else max(height, rows * line)) + MARGIN
    panel = pygame.Rect(0, top, total_width, panel_height)
    status_bottom = top + MARGIN // 2 + LINE
    if below:
        bars = pygame.Rect(MARGIN, status_bottom, total_width - 2 * MARGIN, num_bars * LINE)
    else:
        bars = pygame.Rect(images[-1].right + MARGIN, first_top, bars_width, rows * line)
    banner_top = (bars.bottom if below else status_bottom) + 4
    banner = pygame.Rect(MARGIN, banner_top, total_width - 2 * MARGIN, LINE + 2)
    return Layout((total_width, panel.bottom), images, bars, rows, columns, line, panel, banner)


def open_display() -> None:
    """Connect to the screen.

    Raises:
        ValueError: there is none. `SDL_VIDEODRIVER=dummy` asks for an invisible window.
    """
    asked_for = os.environ.get("SDL_VIDEODRIVER")
    needs_server = sys.platform == "linux" and not asked_for
    if needs_server and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(NO_DISPLAY)  # SDL would draw an invisible window
    try:
        pygame.display.init()
    except pygame.error as error:
        raise ValueError(NO_DISPLAY) from error
    if pygame.display.get_driver() in ("dummy", "offscreen") and not asked_for:
        pygame.display.quit()
        raise ValueError(NO_DISPLAY)


class PlayWindow:
    """One pygame window for images, action bars and keys. It can be resized; images keep their aspect ratio.

    Args:
        frame_size: height and width of a dreamed frame in pixels.
        space: the actions that the bars show.
        scale: screen pixels per dreamed pixel. Defaults to images of about 576 pixels, or to what the desktop fits.
        title: of the window.
        help_lines: what the keys do, shown at the bottom.
        captions: of the images, from left to right; a single image shows none.
        state_space: the state that gauges show after the bars of the actions. Defaults to none.
    """

    def __init__(
        self,
        frame_size: tuple[int, int],
        space: ActionSpace,
        scale: int | None = None,
        title: str = "",
        help_lines: Sequence[str] = HELP,
        captions: Sequence[str] = ("dream",),
        state_space: StateSpace | None = None,
    ):
        pygame.font.init()
        self.space, self.state_space = space, state_space
        self._num_bars = space.size + (len(state_space) if state_space else 0)
        self._frame_size, self._help, self._captions = frame_size, help_lines, captions
        # As many decimals as give about four digits over each range.
        extents = np.concatenate([space.high - space.low, [] if state_space is None else state_space.extent])
        magnitude = np.ceil(np.log10(np.maximum(extents, 1e-4)))
        self._decimals = np.clip(4 - magnitude, 0, 4).astype(int)
        self._font, self._small_font = pygame.font.Font(None, 24), pygame.font.Font(None, 21)
        desktop = tuple(side - DESKTOP_MARGIN for side in pygame.display.get_desktop_sizes()[0])
        wanted = IMAGE_SIDE if len(captions) == 1 else SMALL_IMAGE_SIDE
        largest = scale or max(1, wanted // max(frame_size))
        fitting = self._largest_fitting(largest, desktop) if scale is None else scale
        layout = self._lay_out(fitting, (0, desktop[1]))
        self.surface = pygame.display.set_mode(layout.size, pygame.RESIZABLE)
        pygame.display.set_caption(title or "Dreamer world")
        self._use(layout)

    @property
    def images(self) -> list["pygame.Rect"]:
        """Where the images are, from left to right."""
        return self._layout.images

    @property
    def image(self) -> "pygame.Rect":
        """Where the dream is."""
        return self.images[-1]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Return the command that an event stands for, if it is one of the window's; follow changes of its size."""
        if event.type == pygame.VIDEORESIZE:
            self.surface = pygame.display.get_surface()
            size = self.surface.get_size()
            self._use(self._lay_out(self._largest_fitting(max(1, max(size) // min(self._frame_size)), size), size))
        if event.type == pygame.QUIT:
            return Command.QUIT
        return KEY_COMMANDS.get(event.key) if event.type == pygame.KEYDOWN else None

    def draw(self, view: View) -> None:
        """Draw everything and show it."""
        layout = self._layout
        self.surface.fill(BACKGROUND)
        pygame.draw.rect(self.surface, PANEL, layout.panel)
        for frame, image, caption in zip(view.frames, layout.images, self._captions, strict=True):
            self._draw_frame(frame, image)
            if len(self._captions) > 1:
                self._write(caption, (image.x, MARGIN), DIM)
        self._draw_status(view)
        self._draw_bars(view)
        if view.banner:
            self._draw_banner(view.banner)
        lines = self._help if self._num_bars <= MAX_BARS_BELOW else ["".join(self._help)]
        for row, line in enumerate(lines):
            self._write(line, (MARGIN, layout.banner.bottom + 8 + row * LINE), DIM, self._small_font)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()

    def _lay_out(self, scale: float, room: tuple[int, int]) -> Layout:
        return lay_out(self._frame_size, len(self._captions), self._num_bars, len(self._help), scale, room)

    def _largest_fitting(self, largest: int, room: tuple[int, int]) -> float:
        """Return the largest scale that fits, or the smallest one if none does."""
        for scale in (*range(largest, 0, -1), 1 / 2, 1 / 3, 1 / 4):
            width, height = self._lay_out(scale, room).size
            if width <= room[0] and height <= room[1]:
                break
        return scale

    def _use(self, layout: Layout) -> None:
        self._layout = layout
        self._bar_font = pygame.font.Font(None, min(24, layout.line + 4))
        widest = int(MAX_NAME_SHARE * layout.bars.w / layout.columns)
        names = [*self.space.labels, *(self.state_space.labels if self.state_space else ())]
        if max(self._bar_font.size(name)[0] for name in names) > widest:
            names = without_common_ends(names)
        self._names = [shorten(name, self._bar_font, widest) for name in names]

    def _draw_frame(self, frame: np.ndarray, place: "pygame.Rect") -> None:
        image = pygame.image.frombuffer(np.ascontiguousarray(frame), frame.shape[1::-1], "RGB")
        # Enlarging by whole pixels, without smoothing, shows exactly what the world dreams.
        resize = pygame.transform.scale if place.h >= frame.shape[0] else pygame.transform.smoothscale
        self.surface.blit(resize(image, place.size), place)

    def _draw_banner(self, text: str) -> None:
        """Draw a strip that covers nothing of the dream, and a frame around the dream."""
        place = self._layout.banner
        pygame.draw.rect(self.surface, AMBER, self.image.inflate(8, 8), width=4)
        pygame.draw.rect(self.surface, AMBER, place, border_radius=4)
        rendered = self._font.render(text, True, BACKGROUND)
        self.surface.blit(rendered, rendered.get_rect(center=place.center))

    def _draw_status(self, view: View) -> None:
        top, right = self._layout.panel.y + MARGIN // 2, self._layout.panel.right - MARGIN
        if view.recording:
            right -= 56
            pygame.draw.circle(self.surface, ALERT, (right + 8, top + 8), 6)
            self._write("REC", (right + 20, top), ALERT)
        left = MARGIN
        if view.actor is not None:
            rendered = self._font.render(view.actor, True, BACKGROUND)
            place = rendered.get_rect(topleft=(left + 8, top))
            pygame.draw.rect(self.surface, AMBER, place.inflate(16, 6), border_radius=4)
            self.surface.blit(rendered, place)
            left = place.right + 22
        self._write(shorten(view.status, self._font, right - left), (left, top), TEXT)

    def _draw_bars(self, view: View) -> None:
        layout = self._layout
        for column in range(layout.columns):
            width = layout.bars.w // layout.columns
            place = pygame.Rect(layout.bars.x + column * width, layout.bars.y, width, layout.line)
            if layout.columns > 1:
                place.w -= MARGIN
            self._draw_column(view, range(self._num_bars)[column * layout.rows :][: layout.rows], place)

    def _draw_column(self, view: View, indices: range, place: "pygame.Rect") -> None:
        """Draw bars below each other, the first one at `place`: name, control, range, and value."""
        font = self._bar_font
        labels = view.labels[indices.start : indices.stop]
        labels_left = place.x + max(font.size(self._names[index])[0] for index in indices) + 12
        track_left = labels_left + max((font.size(label)[0] + 12 for label in labels), default=0)
        track = pygame.Rect(track_left, place.y + 3, place.right - track_left, max(5, place.h * 2 // 5))
        track.w -= font.size("-0000.00")[0]
        for index in indices:
            self._write(self._names[index], place.topleft, TEXT, font)
            if index < len(view.labels):
                self._write(view.labels[index], (labels_left, place.y), DIM, font)
            if index < self.space.size:
                self._draw_track(track, index, view.action)
            else:
                self._draw_gauge(track, index - self.space.size, view.state)
            value = view.action[index] if index < self.space.size else view.state[index - self.space.size]
            value = f"{value:.{self._decimals[index]}f}"
            self._write(value, (place.right - font.size(value)[0], place.y), TEXT, font)
            place, track = place.move(0, place.h), track.move(0, place.h)

    def _draw_track(self, track: "pygame.Rect", index: int, action: np.ndarray) -> None:
        """Draw the range of an action, filled from where it rests to its value."""
        pygame.draw.rect(self.surface, TRACK, track, border_radius=3)
        here, rest = (
            track.x + round(track.w * float(self.space.fraction(values)[index]))
            for values in (action, self.space.rest)
        )
        fill = pygame.Rect(min(here, rest), track.y, abs(here - rest), track.h)
        pygame.draw.rect(self.surface, ACCENT, fill, border_radius=3)
        pygame.draw.rect(self.surface, TEXT, (here - 1, track.y - 2, 3, track.h + 4), border_radius=1)

    def _draw_gauge(self, track: "pygame.Rect", index: int, state: np.ndarray) -> None:
        """Draw the range of a component of the state, filled from its lower end to its value."""
        pygame.draw.rect(self.surface, TRACK, track, border_radius=3)
        width = round(track.w * float(self.state_space.fraction(state)[index]))
        pygame.draw.rect(self.surface, GAUGE, (track.x, track.y, width, track.h), border_radius=3)

    def _write(self, text: str, place: tuple[int, int], color: tuple[int, int, int], font=None) -> None:
        self.surface.blit((font or self._font).render(text, True, color), place)


def without_common_ends(names: Sequence[str]) -> list[str]:
    """Return names without the first and the last parts that all of them share, such as "robot." and ".pos"."""
    for _ in range(2):
        pairs = zip(min(names), max(names))
        shared = "".join(ours for ours, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        cut = max(shared.rfind(separator) for separator in "._/ ") + 1
        names = [name[cut:][::-1] for name in names]
    return list(names)


def shorten(text: str, font: "pygame.font.Font", width: int) -> str:
    """Return a text that is at most `width` pixels wide, without its middle if needed: names of joints differ at both
    ends."""
    kept = len(text)
    short = text
    while font.size(short)[0] > width and kept > 0:
        kept -= 1
        tail = kept * 2 // 3
        short = f"{text[: kept - tail]}…{text[len(text) - tail :]}"
    return short


__all__ = ["HELP", "HELP_WITH_AGENT", "PlayWindow", "View", "open_display"]

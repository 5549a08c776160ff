"""A joystick that SDL itself believes in: attached to pygame's own SDL library, seen through pygame's own events."""

import ctypes
from pathlib import Path

from dreamer_hf.play.devices import pygame

GAME_CONTROLLER = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER
FULL = 32767


def _load_sdl() -> ctypes.CDLL:
    """The SDL2 that pygame runs on: bundled with pygame in wheels, otherwise that of the system."""
    bundled = sorted(Path(pygame.__file__).parent.parent.glob("pygame.libs/libSDL2-2*"))
    return ctypes.CDLL(str(bundled[0]) if bundled else "libSDL2-2.0.so.0")


class VirtualJoystick:
    """Plugged in when made; `unplug` pulls it out."""

    def __init__(self, axes: int = 6, buttons: int = 11, hats: int = 1):
        self.sdl = _load_sdl()
        self.sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self.index = self.sdl.SDL_JoystickAttachVirtual(GAME_CONTROLLER, axes, buttons, hats)
        assert self.index >= 0
        self.stick = ctypes.c_void_p(self.sdl.SDL_JoystickOpen(self.index))

    def axis(self, index: int, value: float) -> None:
        assert self.sdl.SDL_JoystickSetVirtualAxis(self.stick, index, ctypes.c_int16(round(value * FULL))) == 0

    def button(self, index: int, pressed: bool) -> None:
        assert self.sdl.SDL_JoystickSetVirtualButton(self.stick, index, ctypes.c_uint8(pressed)) == 0

    def hat(self, value: int) -> None:
        assert self.sdl.SDL_JoystickSetVirtualHat(self.stick, 0, ctypes.c_uint8(value)) == 0

    def unplug(self) -> None:
        assert self.sdl.SDL_JoystickDetachVirtual(self.index) == 0
        self.sdl.SDL_JoystickClose(self.stick)

"""Choosing the device that a person plays with."""

from collections.abc import Callable

from ..action_space import ActionSpace
from .commands import Command
from .joystick import Joystick
from .keyboard_mouse import Keyboard, Mouse
from .pygame_import import pygame
from .sources import InputDevice


def open_device(name: str | None, space: ActionSpace, picture: "pygame.Rect | None" = None) -> InputDevice:
    """Opens "joystick", "keyboard" or "mouse"; None takes the joystick if there is one, else the keyboard.

    Says on standard output what a player could not know: that no joystick was found, or that the device has fewer
    axes than the world has actions.

    Args:
        picture: where a mouse points at.
    """
    pygame.display.init()  # the events of every device come through it
    if name == "joystick" and not Joystick.available():
        print("No joystick is plugged in: playing with the keyboard instead.")
        name = "keyboard"
    if name == "mouse":
        device: InputDevice = Mouse(space.size, picture)
    elif name == "joystick" or (name is None and Joystick.available()):
        device = Joystick(space.size)
    else:
        device = Keyboard(space.size)
    if len(device.labels) < space.size:
        resting = ", ".join(space.names[len(device.labels) :])
        print(f"This device moves {len(device.labels)} of the world's {space.size} actions; at rest stay: {resting}.")
    return device


def make_poll(device: InputDevice) -> Callable[[], bool]:
    """For play without a window: a function that passes events on and returns False once the play has to end."""
    pygame.display.init()

    def poll() -> bool:
        commands = [Command.QUIT if e.type == pygame.QUIT else device.handle(e) for e in pygame.event.get()]
        if Command.UNPLUGGED in commands:
            print("The joystick was unplugged: the play ends here.")
        return not {Command.QUIT, Command.UNPLUGGED} & set(commands)

    return poll

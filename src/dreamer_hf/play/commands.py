"""What a player can ask of the session, apart from moving."""

from enum import Enum, auto


class Command(Enum):
    PAUSE = auto()  # stop, or go on
    STEP = auto()  # one frame, then pause
    RESET = auto()  # begin again from the next start
    REWIND = auto()  # ten frames back
    QUIT = auto()
    UNPLUGGED = auto()  # the joystick has gone
    PLUGGED = auto()  # the joystick is back

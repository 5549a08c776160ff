"""Playing a world: sessions, action sources, recorders. Importing this needs no pygame; windows and devices do."""

from .actions import ActionSpace, make_control
from .dataset_recorder import DatasetRecorder
from .launch import INPUTS, PlayOptions, play
from .recorder import VideoRecorder
from .session import PlaySession
from .sources import PatternActions, ScriptedActions, load_script

__all__ = [
    "INPUTS",
    "ActionSpace",
    "DatasetRecorder",
    "PatternActions",
    "PlayOptions",
    "PlaySession",
    "ScriptedActions",
    "VideoRecorder",
    "load_script",
    "make_control",
    "play",
]

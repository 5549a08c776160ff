"""pygame, imported in one place: set up before SDL starts, quietly, and with a sentence that says how to get it."""

import os
import warnings

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
# SDL otherwise goes deaf to joysticks, silently, whenever another window has the focus.
os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pygame 2.6 imports pkg_resources
        import pygame
except ImportError as error:
    raise ValueError("playing in a window needs pygame: pip install 'dreamer_hf[play]'.") from error

__all__ = ["pygame"]

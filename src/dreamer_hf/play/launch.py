"""The way from a player's options to a game, quick to say no: what takes seconds to import comes last."""

import os

from .options import PlayOptions


def play(options: PlayOptions) -> None:
    """Loads a world and plays it until the player quits, the script ends, or the steps are done.

    Raises:
        ValueError, OSError: for anything in the options that cannot be done, in one sentence.
    """
    options.check()
    if options.headless:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    else:
        from .window import open_display

        open_display()
    from .game import play_headless, play_in_window

    (play_headless if options.headless else play_in_window)(options)

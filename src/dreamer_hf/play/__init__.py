"""Playing a world: `play(PlayOptions(model=...))`. Nothing that takes time is imported before it is needed."""

import os

from ..threads import wait_without_spinning
from .play_options import PlayOptions


def play(options: PlayOptions) -> None:
    """Load a world and play it until the player quits, the script ends, or the steps are used up.

    Raises:
        ValueError, OSError: the options ask for something that cannot be done; one sentence says what and why.
    """
    options.check()
    if options.headless:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    else:
        from .window import open_display

        open_display()
    wait_without_spinning()
    from .play_app import PlaySetup, play_headless, play_in_window

    setup = PlaySetup.load(options)
    (play_headless if options.headless else play_in_window)(setup)


__all__ = ["PlayOptions", "play"]

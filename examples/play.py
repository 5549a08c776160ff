"""Play a world: steer the dream with a joystick, the keyboard, the mouse or a script. See docs/play.md."""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("play")

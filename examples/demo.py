"""Steer the world that ships with the package: four dreams from the same start, as `make demo` runs it.

    python examples/demo.py

Writes dream.mp4 and dream.gif to outputs/demo. Takes seconds on a CPU; nothing is downloaded.
"""

from dreamer_hf.cli import main

if __name__ == "__main__":
    main("demo")

"""The tiny world as fixtures, and a machine set up for it."""

import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch

from dreamer_hf import DreamerWorldModel
from dreamer_hf.start_frames import StartFrames
from tiny import make_starts, make_world, save_world

SCRIPT = Path(__file__).parents[2] / "examples" / "play.py"

os.environ["SDL_VIDEODRIVER"] = "dummy"  # windows are drawn, but not shown
torch.set_num_threads(1)  # at this size several threads only wait for each other


@pytest.fixture(scope="session")
def world() -> DreamerWorldModel:
    return make_world()


@pytest.fixture
def starts() -> StartFrames:
    return make_starts()


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory, world):
    return save_world(tmp_path_factory.mktemp("world"), world)


@pytest.fixture
def run_here(monkeypatch, capsys, world_folder):
    """Runs the script in this process, which spares its start-up; returns its exit status, output and errors."""

    def run(*arguments, model=world_folder):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--model", *map(str, (model, *arguments))])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)

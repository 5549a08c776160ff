"""A tiny saved world to make environments of, shared with the tests of play."""

import os

import pytest
import torch

from dreamer_hf.start_frames import save_start_frames
from tiny import make_starts, make_world

os.environ["SDL_VIDEODRIVER"] = "dummy"  # windows are drawn, but not shown
torch.set_num_threads(1)  # at this size several threads only wait for each other


@pytest.fixture(scope="session")
def world():
    return make_world()


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory, world):
    """A world saved with `save_pretrained`, with its start frames: what training leaves."""
    folder = tmp_path_factory.mktemp("world")
    world.save_pretrained(folder)
    save_start_frames(folder, make_starts(num_starts=4))
    return folder

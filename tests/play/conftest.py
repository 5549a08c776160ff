"""The tiny world as fixtures, and a machine set up for it."""

import os

import pytest
import torch
from tiny_world import make_starts, make_world

from dreamer_hf import DreamerWorldModel
from dreamer_hf.start_frames import StartFrames, save_start_frames

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
    """A world saved with `save_pretrained`, with its start frames: what training leaves."""
    folder = tmp_path_factory.mktemp("world")
    world.save_pretrained(folder)
    save_start_frames(folder, make_starts())
    return folder

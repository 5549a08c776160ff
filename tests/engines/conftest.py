"""A tiny world, saved as training leaves it, and its export for ONNX Runtime."""

import os

import pytest
import torch

from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.start_frames import save_start_frames
from tiny import build_once, make_starts, tiny_world

STATISTICS = {"mean": [250.0, 260.0], "std": [100.0, 90.0], "min": [0.0, 10.0], "max": [512.0, 500.0]}

os.environ["SDL_VIDEODRIVER"] = "dummy"  # windows are drawn, but not shown
torch.set_num_threads(1)  # at this size several threads only wait for each other


@pytest.fixture(scope="session")
def world():
    return tiny_world(dynamics_changes={"action_stats": STATISTICS, "fps": 20})


@pytest.fixture(scope="session")
def starts():
    return make_starts()


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory, world, starts):
    def build(folder):
        world.save_pretrained(folder)
        save_start_frames(folder, starts)

    return build_once(tmp_path_factory, "engine_world", build)


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory, world, starts):
    return build_once(tmp_path_factory, "engine_export", lambda folder: export_onnx(world, folder, starts=starts))

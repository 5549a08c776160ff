"""A tiny random world of PushT's size, saved with start frames; a trust model; and made-up things to rank in it."""

import json
import os
from pathlib import Path

import pytest
import torch

from dreamer_hf.pusht.simulator import PushTSimulator
from dreamer_hf.start_frames import StartFrames, save_start_frames
from dreamer_hf.trust import TrustModel, trust_content
from tiny import random_world

os.environ["SDL_VIDEODRIVER"] = "dummy"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pusht_world(tmp_path_factory) -> Path:
    """A random world whose start frames show PushT, with relative actions and a trust model."""
    folder = tmp_path_factory.mktemp("pusht_world")
    stats = {"mean": [0.0] * 2, "std": [12.0] * 2, "min": [-35.0] * 2, "max": [35.0] * 2}
    random_world(fps=10, action_stats=stats, relative_actions=[True, True]).save_pretrained(folder)
    simulator = PushTSimulator(32, relative=True)
    starts = [simulator.reset(seed, 3) for seed in range(3)]
    names = ("pixel_values_videos", "actions", "action_mask")
    save_start_frames(folder, StartFrames(*(torch.cat([getattr(start, name) for start in starts]) for name in names)))
    trust = TrustModel(("spread",), (1.0,), 0.0, "position", 5.0, 10, 2, 0.7, 4)
    (folder / "trust.json").write_text(json.dumps(trust_content(trust)))
    return folder

"""Planning in PushT: positions measured by color, and episodes in the dream and in the simulator."""

from pathlib import Path

import pytest
import torch

from commands import run_command
from dreamer_hf.pusht.pusht_options import ReachOptions
from dreamer_hf.pusht.reach import COLORS, distance_to, reach
from dreamer_hf.pusht.simulator import PushTSimulator
from dreamer_hf.pusht.task import tee_center
from dreamer_hf.start_frames import save_start_frames
from tiny import make_starts, make_world, random_world

SCRIPT = Path(__file__).parents[2] / "examples" / "plan_cem.py"
SIZES = {"horizon": 2, "candidates": 6, "elites": 2}


@pytest.mark.parametrize("what", ["agent", "block"])
def test_positions_are_measured_on_frames(what):
    simulator = PushTSimulator(64, relative=False)
    measured, lost = [], []
    for seed in range(6):
        frame = simulator.reset(seed, 1).pixel_values_videos[0, -1:] / 255
        here = simulator.agent if what == "agent" else tee_center(simulator.block_pose)
        cost = distance_to(tuple(here), COLORS[what])
        measured.append(float(cost(frame)))
        lost.append(float(cost(torch.ones(1, 3, 64, 64))))
    assert max(measured) < 20  # of 512 pixels; a frame has 64
    assert min(lost) == 512  # an empty table shows neither


@pytest.fixture(scope="module")
def pusht_world(tmp_path_factory) -> Path:
    """A random world whose start frames show PushT."""
    folder = tmp_path_factory.mktemp("pusht_world")
    stats = {"mean": [256.0] * 2, "std": [90.0] * 2, "min": [0.0] * 2, "max": [512.0] * 2}
    random_world(fps=10, action_stats=stats).save_pretrained(folder)
    save_start_frames(folder, PushTSimulator(32, relative=False).reset(0, 3))
    return folder


@pytest.mark.parametrize("real", [False, True])
def test_an_episode_is_recorded_and_reproducible(pusht_world, tmp_path, real):
    options = {"model": str(pusht_world), "steps": 2, "real": real, **SIZES}
    said = reach(ReachOptions(**options, record=str(tmp_path / "plan.mp4")))
    assert ("in the simulator" if real else "in the dream") in said
    assert (tmp_path / "plan.mp4").stat().st_size > 0
    assert reach(ReachOptions(**options)) == said


def test_other_worlds_are_refused(tmp_path):
    make_world(action_dim=3, action_names=None, action_stats=None).save_pretrained(tmp_path / "wide")
    make_world().save_pretrained(tmp_path / "other")
    save_start_frames(tmp_path / "other", make_starts())
    for name, sentence in (("wide", "PushT has 2 actions but this world has 3"), ("other", "do not show PushT")):
        with pytest.raises(ValueError, match=sentence):
            reach(ReachOptions(model=str(tmp_path / name)))


@pytest.mark.slow
def test_the_script_refuses_positions_off_the_table():
    done = run_command(SCRIPT, "--model", "x", "--to", "9", "600")
    assert done.returncode == 2 and "expected a position in 0 to 512 for --to, got 9.0 600.0" in done.stderr

"""From device axes to raw actions."""

from dataclasses import replace

import numpy as np
import pytest

from dreamer_hf import DreamerDynamicsConfig
from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.controls import Control, make_control


def space_of(stats=None, size=2, **fields) -> ActionSpace:
    return ActionSpace.from_config(DreamerDynamicsConfig(action_dim=size, action_stats=stats, **fields))


ABSOLUTE = {"mean": [250.0, 250.0], "std": [80.0, 80.0], "min": [0.0, 100.0], "max": [500.0, 500.0]}
RELATIVE = {"mean": [0.01, -0.01], "std": [0.1, 0.1], "min": [-0.5, -0.2], "max": [1.0, 0.2]}
JOINTS = {"mean": [-1.2, 0.9], "std": [0.3, 0.4], "min": [-2.0, -0.1], "max": [0.2, 1.5]}


def direct(space):
    return make_control(space, fps=10, kind="direct")


def target(space, seconds_across=1.5):
    return Control(space, 10, np.zeros(space.size, bool), seconds_across=seconds_across)


@pytest.mark.parametrize(
    ("stats", "pointer", "kind"),
    [
        (None, False, "direct"),
        (ABSOLUTE, False, "target"),
        (ABSOLUTE, True, "position"),
        (JOINTS, False, "target"),
        (RELATIVE, False, "direct"),
        (RELATIVE, True, "direct"),
    ],
)
def test_the_control_suits_the_world(stats, pointer, kind):
    space = space_of(stats)
    control = make_control(space, fps=10, pointer=pointer)
    ends = [control(np.array([axis, axis])) for axis in (-1.0, 1.0, 0.0)]
    if kind == "target":
        assert control.target.tolist() == ends[2].tolist() != space.high.tolist()
    else:
        np.testing.assert_array_equal(ends[:2], [space.low, space.high])
        middle = space.rest if kind == "direct" else (space.low + space.high) / 2
        np.testing.assert_array_equal(ends[2], middle)


def test_each_component_has_its_own_control_where_the_world_says_what_it_is():
    space = replace(space_of(JOINTS), relative=np.array([True, False]))
    control = make_control(space, fps=10)
    control.resume_from(np.array([0.1, 1.0]))
    moved, released = control(np.array([1.0, 1.0])), control(np.zeros(2))
    np.testing.assert_allclose(moved, [0.2, 1.0 + 1.6 / 15], rtol=1e-6)
    np.testing.assert_allclose(released, [0.0, moved[1]])


def test_direct_actions_rest_at_zero_and_reach_both_ends():
    control = direct(space_of(RELATIVE))
    assert control(np.zeros(2)).tolist() == [0, 0]
    np.testing.assert_allclose(control(np.array([-1.0, 1.0])), [-0.5, 0.2])
    np.testing.assert_allclose(control(np.array([0.5, -0.5])), [0.5, -0.1])


def test_a_target_starts_at_the_last_action_moves_at_its_speed_and_stays_in_range():
    control = target(space_of(ABSOLUTE), seconds_across=2)
    control.resume_from(np.array([300.0, 400.0]))
    assert control(np.zeros(2)).tolist() == [300, 400]
    np.testing.assert_allclose(control(np.array([1.0, -0.5])), [325, 390])
    for _ in range(50):
        action = control(np.array([1.0, -1.0]))
    assert action.tolist() == [500, 100]


def test_a_position_is_the_action():
    control = make_control(space_of(ABSOLUTE), fps=10, kind="target", pointer=True)
    assert control(np.array([-1.0, 1.0])).tolist() == [0, 500]
    assert control(np.zeros(2)).tolist() == [250, 300]


def test_classes_are_whole_numbers():
    space = space_of(RELATIVE, action_num_classes=[0, 3])
    assert (space.low[1], space.high[1]) == (0, 2)
    control = target(space, seconds_across=1)
    control.resume_from(np.zeros(2))
    classes = [control(np.array([0.0, 1.0]))[1] for _ in range(10)]
    assert classes[0] == 0 and classes[-1] == 2 and set(classes) == {0, 1, 2}


def test_an_unknown_control_is_refused():
    with pytest.raises(ValueError, match="direct"):
        make_control(space_of(), fps=10, kind="magic")

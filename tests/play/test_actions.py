"""From device axes to raw actions."""

import numpy as np
import pytest

from dreamer_hf import DreamerDynamicsConfig
from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.actions import DirectControl, PositionControl, TargetControl, make_control


def space_of(stats=None, size=2, **fields) -> ActionSpace:
    return ActionSpace.from_config(DreamerDynamicsConfig(action_dim=size, action_stats=stats, **fields))


ABSOLUTE = {"mean": [250.0, 250.0], "std": [80.0, 80.0], "min": [0.0, 100.0], "max": [500.0, 500.0]}
RELATIVE = {"mean": [0.01, -0.01], "std": [0.1, 0.1], "min": [-0.5, -0.2], "max": [1.0, 0.2]}
JOINTS = {"mean": [-1.2, 0.9], "std": [0.3, 0.4], "min": [-2.0, -0.1], "max": [0.2, 1.5]}


def test_without_statistics_the_range_is_minus_one_to_one():
    space = space_of()
    assert space.low.tolist() == [-1, -1] and space.high.tolist() == [1, 1]
    assert isinstance(make_control(space, fps=10), DirectControl)


def test_labels_carry_the_units_that_the_world_knows():
    space = space_of(action_names=["x", "grip"], action_units=["mm", ""])
    assert space.labels == ["x [mm]", "grip"] and space_of(action_names=["x", "y"]).labels == ["x", "y"]


def test_statistics_without_extremes_give_two_standard_deviations():
    space = space_of({"mean": [1.0], "std": [0.5]}, size=1)
    assert (space.low.item(), space.high.item()) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("stats", "pointer", "kind"),
    [
        (ABSOLUTE, False, TargetControl),
        (ABSOLUTE, True, PositionControl),
        (JOINTS, False, TargetControl),
        (RELATIVE, False, DirectControl),
        (RELATIVE, True, DirectControl),
    ],
)
def test_the_control_suits_the_world(stats, pointer, kind):
    assert type(make_control(space_of(stats), fps=10, pointer=pointer)) is kind


def test_direct_actions_rest_at_zero_and_reach_both_ends():
    control = DirectControl(space_of(RELATIVE))
    assert control(np.zeros(2)).tolist() == [0, 0]
    np.testing.assert_allclose(control(np.array([-1.0, 1.0])), [-0.5, 0.2])
    np.testing.assert_allclose(control(np.array([0.5, -0.5])), [0.5, -0.1])


def test_a_target_starts_at_the_last_action_moves_at_its_speed_and_stays_in_range():
    control = TargetControl(space_of(ABSOLUTE), fps=10, seconds_across=2)
    control.resume_from(np.array([300.0, 400.0]))
    assert control(np.zeros(2)).tolist() == [300, 400]
    np.testing.assert_allclose(control(np.array([1.0, -0.5])), [325, 390])
    for _ in range(50):
        action = control(np.array([1.0, -1.0]))
    assert action.tolist() == [500, 100]


def test_a_place_is_the_action():
    control = PositionControl(space_of(ABSOLUTE))
    assert control(np.array([-1.0, 1.0])).tolist() == [0, 500]
    assert control(np.zeros(2)).tolist() == [250, 300]


def test_classes_are_whole_numbers():
    space = space_of(RELATIVE, action_num_classes=[0, 3])
    assert (space.low[1], space.high[1]) == (0, 2)
    control = TargetControl(space, fps=10, seconds_across=1)
    control.resume_from(np.zeros(2))
    classes = [control(np.array([0.0, 1.0]))[1] for _ in range(10)]
    assert classes[0] == 0 and classes[-1] == 2 and set(classes) == {0, 1, 2}


def test_an_unknown_control_is_refused():
    with pytest.raises(ValueError, match="direct"):
        make_control(space_of(), fps=10, kind="magic")

"""What a world's configuration says about its actions."""

import numpy as np
import pytest

from dreamer_hf import DreamerDynamicsConfig
from dreamer_hf.action_space import ActionSpace

CENTERED = {"mean": [0.0, 0.0], "std": [1.0, 1.0], "min": [-2.0, -3.0], "max": [2.0, 3.0]}
POSITIONS = {"mean": [1.0, 2.0], "std": [0.5, 0.5], "min": [0.0, 0.0], "max": [4.0, 4.0]}
MIXED = {"mean": [0.0, 2.0, 2.0], "std": [1.0, 0.5, 0.5], "min": [-2.0, 0.0, 0.0], "max": [2.0, 4.0, 4.0]}


def space_of(stats=None, size=2, **fields) -> ActionSpace:
    return ActionSpace.from_config(DreamerDynamicsConfig(action_dim=size, action_stats=stats, **fields))


def test_without_statistics_the_range_is_minus_one_to_one():
    space = space_of()
    assert space.low.tolist() == [-1, -1] and space.high.tolist() == [1, 1]


def test_statistics_without_extremes_give_two_standard_deviations():
    space = space_of({"mean": [1.0], "std": [0.5]}, size=1)
    assert (space.low.item(), space.high.item()) == (0.0, 2.0)


def test_labels_carry_the_units_that_the_world_knows():
    space = space_of(action_names=["x", "grip"], action_units=["mm", ""])
    assert space.labels == ["x [mm]", "grip"] and space_of(action_names=["x", "y"]).labels == ["x", "y"]


@pytest.mark.parametrize(
    ("stats", "fields", "relative"),
    [
        (CENTERED, {}, True),
        (POSITIONS, {}, False),
        (MIXED, {}, False),
        (MIXED, {"action_num_classes": [0, 0, 2]}, True),
    ],
)
def test_a_world_that_does_not_say_what_its_actions_are_gets_one_guess_for_all(stats, fields, relative):
    space = space_of(stats, len(stats["mean"]), **fields)
    assert space.relative.tolist() == [relative] * space.size and space.is_relative is relative


def test_a_world_that_says_what_its_actions_are_needs_no_guess():
    space = space_of(CENTERED, relative_actions=[False, True])
    assert space.relative.tolist() == [False, True]


def test_the_nearest_valid_action_is_in_range_and_finite():
    space = space_of(CENTERED, action_num_classes=[0, 3])
    assert space.valid(np.array([-9.0, 1.4])).tolist() == [-2, 1]
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not a finite number"):
            space.valid(np.array([0.0, value]))

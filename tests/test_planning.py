"""The planner on a tiny world."""

import numpy as np
import pytest
import torch

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.modeling_dreamer_world import DreamerWorldModel
from dreamer_hf.planning import CrossEntropyPlanner
from dreamer_hf.pusht.state import find_pusht_agent
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.worlds import shipped_world
from tiny import make_starts, make_world


@pytest.fixture(scope="module")
def world():
    return make_world(fps=10)


@pytest.fixture
def rollout(world):
    start = make_starts()[0]
    generator = torch.Generator().manual_seed(0)
    rollout = world.start_rollout(start, generator=generator)
    rollout.step(torch.full((1, 2), 250.0))
    return rollout


def brightness(frames):
    return frames.mean(dim=(1, 2, 3))


def distance_to_the_corner(frames):
    """Return how far the agent is from the top left corner, in pixels of gym-pusht; far away where it is not seen."""
    return find_pusht_agent(frames).norm(dim=-1).nan_to_num(1000.0)


def make_planner(world, **options):
    space = ActionSpace.from_config(world.config.dynamics_config)
    return CrossEntropyPlanner(space, brightness, **{"horizon": 4, "num_candidates": 24, "num_elites": 4} | options)


def test_costs_are_those_of_each_future_dreamed_alone(world, rollout):
    candidates = np.random.default_rng(0).uniform([0, 10], [512, 500], size=(5, 3, 2)).astype(np.float32)
    costs = make_planner(world).costs(rollout, candidates, noise_seed=9)
    for candidate, cost in zip(candidates, costs):
        alone = rollout.clone()
        alone.latent_rollout.generator = torch.Generator().manual_seed(9)
        frames = [alone.step(torch.from_numpy(action)[None]).pixel_values for action in candidate]
        assert cost == pytest.approx(float(torch.stack(frames).mean()), abs=1e-5)


@pytest.mark.slow
def test_plans_are_cheaper_than_chance_under_new_noise():
    """In the shipped world, a plan brings the agent closer to a spot than 24 random futures do."""
    path = shipped_world("pusht-tiny")
    world = DreamerWorldModel.from_pretrained(path).eval()
    rollout = world.start_rollout(load_start_frames(path)[0], generator=torch.Generator().manual_seed(0))
    space = ActionSpace.from_config(world.config.dynamics_config)
    planner = CrossEntropyPlanner(space, distance_to_the_corner, horizon=3, num_candidates=24, num_rounds=3, seed=0)
    plan = planner.plan(rollout)
    assert plan.actions.shape == (3, 2) and plan.actions.dtype == np.float32
    assert (plan.actions >= space.low).all() and (plan.actions <= space.high).all()
    others = np.random.default_rng(1).uniform(space.low, space.high, size=(24, 3, 2)).astype(np.float32)
    candidates = np.concatenate([plan.actions[None], others])
    costs = np.mean([planner.costs(rollout, candidates, noise_seed) for noise_seed in range(2)], axis=0)
    assert (costs[1:] < costs[0]).mean() <= 1 / 24


def test_planning_does_not_change_the_dream_and_is_reproducible(world, rollout):
    untouched = rollout.clone()
    first, second = (make_planner(world, seed=3).plan(rollout) for _ in range(2))
    np.testing.assert_array_equal(first.actions, second.actions)
    action = torch.full((1, 2), 100.0)
    assert torch.equal(rollout.step(action).pixel_values, untouched.step(action).pixel_values)


def test_the_next_plan_starts_from_the_rest_of_the_last_one(world, rollout):
    planner = make_planner(world)
    plan = planner.plan(rollout)
    np.testing.assert_allclose(planner.space.valid(planner._mean)[:3], plan.actions[1:], rtol=1e-5)
    planner.forget()
    assert (planner._mean == planner.space.rest).all()


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"num_elites": 24}, {"num_rounds": 0}, {"smoothness": 1.0}])
def test_impossible_numbers_are_refused(world, wrong):
    with pytest.raises(ValueError, match="cannot plan with"):
        make_planner(world, **wrong)


def test_a_batch_is_refused(world, rollout):
    with pytest.raises(ValueError, match="has 2 rows"):
        make_planner(world).plan(rollout.clone(rows=[0, 0]))

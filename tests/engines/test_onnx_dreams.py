"""Dreams on ONNX Runtime are those on PyTorch: stepped, restarted, branched, rewound and joined."""

import numpy as np
import pytest
import torch

from dreamer_hf.dreams import Dreams
from dreamer_hf.envs.dream_rows import DreamOptions, DreamRows
from dreamer_hf.onnx import OnnxStarts, OnnxWorld
from tiny import make_starts

pytestmark = pytest.mark.slow  # exporting takes seconds
STARTS, SEEDS = [0, 1, 0], [5, 6, 7]


@pytest.fixture(scope="module")
def onnx_world(export_folder):
    return OnnxWorld.from_pretrained(export_folder, threads=1)


@pytest.fixture
def pair(world, starts, onnx_world):
    """The same dreams of both engines."""
    return Dreams(world, starts), Dreams(onnx_world, onnx_world.starts)


def actions_of(members):
    return [np.array([100 + 9 * member.step + 50 * n, 300 - 5 * member.step]) for n, member in enumerate(members)]


def assert_same(torch_dreams, onnx_dreams):
    for ours, theirs in zip(onnx_dreams, torch_dreams, strict=True):
        assert np.abs(ours.frame.astype(int) - theirs.frame).max() <= 1
        np.testing.assert_allclose(ours.latents, theirs.latents.numpy(), atol=1e-4)
        np.testing.assert_array_equal(ours.action, theirs.action)
        assert (ours.start, ours.seed, ours.step) == (theirs.start, theirs.seed, theirs.step)


def step_both(pair, members, count=3):
    for _ in range(count):
        for dreams, each in zip(pair, members):
            dreams.step(each, actions_of(each))
        assert_same(*members)


def test_dreams_of_both_engines_show_the_same(pair):
    members = [dreams.begin(STARTS, SEEDS) for dreams in pair]
    assert_same(*members)
    step_both(pair, members, 6)
    assert isinstance(members[1][0].latents, np.ndarray) and isinstance(members[0][0].latents, torch.Tensor)


def test_sets_that_change_restarts_branches_and_rewinds(pair):
    members = [dreams.begin(STARTS, SEEDS) for dreams in pair]
    step_both(pair, [each[:2] for each in members])
    step_both(pair, [each[2:] for each in members])
    step_both(pair, [each[::-1] for each in members])
    branches = [dreams.clone(each) for dreams, each in zip(pair, members)]
    for dreams, each in zip(pair, members):
        dreams.restart([each[1]], [0], [9])
    step_both(pair, members)
    step_both(pair, branches, 1)
    for dreams, each, branch in zip(pair, members, branches):
        dreams.rewind(each, branch)
    assert_same(*members)
    step_both(pair, members)


def test_frames_that_are_given_start_a_dream(pair, onnx_world):
    given = make_starts(num_frames=7)[1]
    members = [dreams.begin(given, [3]) for dreams in pair]
    assert members[1][0].start is None
    step_both(pair, members)
    with pytest.raises(ValueError, match="actions of width 3 but the world takes 2"):
        pair[1].begin(make_starts(action_dim=3)[0], [0])
    frames = np.zeros((1, 2, 3, 8, 8), np.uint8)
    small = OnnxStarts(frames, np.zeros((1, 2, 2), np.float32), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="8x8 pixels but the world dreams 16x16"):
        pair[1].begin(small, [0])


def test_each_engine_takes_the_start_frames_of_the_other(world, starts, onnx_world):
    members = [
        Dreams(world, onnx_world.starts).begin([1], [4]),
        Dreams(onnx_world, starts).begin([1], [4]),
    ]
    assert_same(*members)


def test_impossible_steps_and_actions_are_refused(onnx_world):
    with pytest.raises(ValueError, match="power"):
        Dreams(onnx_world, onnx_world.starts, num_inference_steps=3)
    dreams = Dreams(onnx_world, onnx_world.starts)
    members = dreams.begin([0], [0])
    with pytest.raises(ValueError, match="finite"):
        dreams.step(members, [[np.nan, 0.0]])
    with pytest.raises(ValueError, match=r"expected actions of shape \(1, 2\)"):
        dreams.step(members, [[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="--engine torch"):
        dreams.reserve([1, 2])


def test_threads_are_set_and_measured(onnx_world):
    dreams = Dreams(onnx_world, onnx_world.starts)
    members = dreams.begin([0], [0])
    assert dreams.choose_threads(members, 2).threads == onnx_world.threads == 2
    choice = dreams.choose_threads(members)
    assert choice.threads == onnx_world.threads and set(choice.seconds) <= {1, 2}
    assert members[0].step == 0
    dreams.choose_threads(members, 1)


def test_environment_rows_reward_arrays_of_latents(export_folder):
    seen = []

    def reward(transition):
        seen.append(transition.latents)
        return transition.latents.mean(axis=(1, 2))

    options = DreamOptions(engine="onnx", threads=1, reward_fn=reward, latents_in_info=True)
    rows = DreamRows(export_folder, options, num_rows=2)
    rows.restart([0, 1], [np.random.default_rng(seed) for seed in (0, 1)], None)
    rewards, _ = rows.evaluate(rows.step(np.full((2, 2), 250, np.float32)))
    assert isinstance(seen[0], np.ndarray) and seen[0].shape == (2, 3, 5)
    np.testing.assert_allclose(rewards, [rows.info(row)["latents"].mean() for row in range(2)], rtol=1e-5)

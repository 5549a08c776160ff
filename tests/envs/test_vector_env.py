"""The vector environment against as many single ones, row by row."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import dreamer_hf.envs  # noqa: F401  (registers the environments)
from tiny import IMAGE_SIZE, make_starts, make_world

ID = "dreamer_hf/DreamerWorld-v0"
N = 3
ACTIONS = np.random.default_rng(0).uniform([0, 10], [512, 500], size=(12, N, 2)).astype(np.float32)
LIMITS = np.array([4, 7, 100])


def ends_by_row(transition):
    """Rows end after different numbers of steps."""
    return transition.steps >= LIMITS


def brightness(transition):
    return transition.frames.mean(axis=(1, 2, 3)) / 255


def make_vector(model, num_envs=N, **options):
    return gymnasium.make_vec(ID, num_envs=num_envs, model=model, **options)


def make_sync(model, mode, **options):
    """What Gymnasium itself makes of N single environments, whose rows end at their own times."""
    singles = [
        lambda row=row: gymnasium.make(ID, model=model, terminated_fn=lambda t: t.steps >= LIMITS[row], **options)
        for row in range(N)
    ]
    return gymnasium.vector.SyncVectorEnv(singles, autoreset_mode=mode)


def assert_same_frames(ours, theirs):
    """To rounding: a batch adds up in another order than a single row, which may move a value across a half."""
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_spaces_are_batched(world_folder):
    env = make_vector(world_folder)
    assert env.observation_space.shape == (N, IMAGE_SIZE, IMAGE_SIZE, 3) and env.action_space.shape == (N, 2)
    assert env.single_action_space == gymnasium.make(ID, model=world_folder).action_space
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_rows_are_what_single_environments_are(world_folder, mode):
    options = {"reward_fn": brightness, "latents_in_info": True}
    ours = make_vector(world_folder, autoreset_mode=mode, terminated_fn=ends_by_row, **options)
    theirs = make_sync(world_folder, mode, **options)
    (frames, info), (expected, expected_info) = ours.reset(seed=5), theirs.reset(seed=5)
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_allclose(info["latents"], expected_info["latents"], atol=1e-4)
    ended = 0
    for action in ACTIONS:
        frames, rewards, *ends, info = ours.step(action)
        expected, expected_rewards, *expected_ends, expected_info = theirs.step(action)
        assert_same_frames(frames, expected)
        np.testing.assert_allclose(rewards, expected_rewards, atol=1e-3)
        np.testing.assert_array_equal(ends, expected_ends)
        assert info.keys() == expected_info.keys()
        np.testing.assert_allclose(info["latents"], expected_info["latents"], atol=1e-3)
        if "final_obs" in info:
            np.testing.assert_array_equal(info["_final_obs"], expected_info["_final_obs"])
            for row in np.flatnonzero(info["_final_obs"]):
                assert_same_frames(info["final_obs"][row], expected_info["final_obs"][row])
            last, expected_last = (each["final_info"]["latents"] for each in (info, expected_info))
            np.testing.assert_allclose(last, expected_last, atol=1e-3)
        ended += np.sum(ends[0])
    assert ended == (3 if mode is AutoresetMode.NEXT_STEP else 4)


@pytest.mark.slow
def test_disabled_rows_wait_for_their_reset(world_folder):
    ours = make_vector(world_folder, autoreset_mode="Disabled", terminated_fn=ends_by_row)
    theirs = make_sync(world_folder, AutoresetMode.DISABLED)
    for env in (ours, theirs):
        env.reset(seed=1)
    for action in ACTIONS:
        frames, _, ends, *_ = ours.step(action)
        expected, _, expected_ends, *_ = theirs.step(action)
        assert_same_frames(frames, expected)
        np.testing.assert_array_equal(ends, expected_ends)
        if ends.any():
            with pytest.raises(ValueError, match="have ended: reset them"):
                ours.step(action)
            frames, _ = ours.reset(options={"reset_mask": ends})
            assert_same_frames(frames, theirs.reset(options={"reset_mask": ends})[0])


@pytest.mark.slow
def test_a_row_with_a_seed_begins_like_a_fresh_one_whatever_its_neighbors_did(world_folder):
    env = make_vector(world_folder)
    env.reset(seed=0)
    for action in ACTIONS[:5]:
        env.step(action)
    mask = np.array([False, True, False])
    frames, _ = env.reset(seed=[None, 42, None], options={"reset_mask": mask, "start_index": 2})
    single = gymnasium.make(ID, model=world_folder)
    expected, _ = single.reset(seed=42, options={"start_index": 2})
    np.testing.assert_array_equal(frames[1], expected)
    for action in ACTIONS[5:]:
        assert_same_frames(env.step(action)[0][1], single.step(action[1])[0])


def test_each_row_can_start_from_its_own_frames(world_folder):
    given = np.random.default_rng(2).integers(0, 256, (N, 2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    env = make_vector(world_folder)
    np.testing.assert_array_equal(env.reset(options={"frames": given})[0], given[:, -1])
    np.testing.assert_array_equal(env.reset(options={"frames": given[0]})[0], given[[0] * N, -1])
    with pytest.raises(ValueError, match="not for 3 rows"):
        env.reset(options={"frames": given[:2]})


def test_a_time_limit_truncates_rows(world_folder):
    env = make_vector(world_folder, max_episode_steps=3, render_mode="rgb_array")
    env.reset(seed=0)
    truncated = [env.step(action)[3].tolist() for action in ACTIONS[:8]]
    assert [all(step) for step in truncated] == [False, False, True, False, False, False, True, False]
    assert len(env.render()) == N and env.render()[0].shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


@pytest.mark.parametrize("classes", [[0, 2], [2, 3], [5]])
def test_batches_of_every_space(classes):
    size = len(classes)
    world = make_world(action_dim=size, action_names=None, action_stats=None, action_num_classes=classes)
    starts = make_starts(action_dim=size)
    starts.actions[:] = 0
    env, single = make_vector(world, start=starts), gymnasium.make(ID, model=world, start=starts)
    env.action_space.seed(0)
    env.reset(seed=0)
    single.reset(seed=0)
    for _ in range(3):
        action = env.action_space.sample()
        first = next(iter(gymnasium.vector.utils.iterate(env.action_space, action)))
        assert_same_frames(env.step(action)[0][0], single.step(first)[0])


@pytest.mark.slow
def test_compiled_rows_dream_the_same(world_folder, without_a_code_generator):
    plain, compiled = (make_vector(world_folder, 2, compile=compile, max_episode_steps=3) for compile in (False, True))
    np.testing.assert_array_equal(plain.reset(seed=0)[0], compiled.reset(seed=0)[0])
    compiled.reset(seed=0)
    plain.reset(seed=0)
    for action in ACTIONS[:6, :2]:
        assert_same_frames(compiled.step(action)[0], plain.step(action)[0])


def test_what_does_not_fit_is_refused(world_folder):
    env = make_vector(world_folder)
    with pytest.raises(ValueError, match="no row has started yet"):
        env.reset(options={"reset_mask": np.array([True, False, False])})
    env.reset()
    for mask in (np.zeros(N, bool), np.ones(2, bool), np.ones(N)):
        with pytest.raises(ValueError, match="reset_mask is"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="2 seeds for 3 rows"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="expected actions of shape"):
        env.step(ACTIONS[0, :2])
    with pytest.raises(ValueError, match="use 'rgb_array'"):
        make_vector(world_folder, render_mode="human")

"""The single environment on a real tiny world."""

import copy
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import dreamer_hf.envs  # noqa: F401  (registers the environments)
from dreamer_hf.seeded_noise import SeededNoise
from tiny import IMAGE_SIZE, make_starts, make_world

ID = "dreamer_hf/DreamerWorld-v0"
ACTIONS = np.random.default_rng(0).uniform([0, 10], [512, 500], size=(8, 2)).astype(np.float32)


def make(model, **options):
    return gymnasium.make(ID, model=model, **options)


def frames_of(env, actions=ACTIONS, **reset):
    return np.stack([env.reset(**reset)[0], *(env.step(action)[0] for action in actions)])


@pytest.fixture
def env(world_folder):
    env = make(world_folder)
    yield env
    env.close()


@pytest.mark.slow
def test_gymnasium_accepts_the_environment(world_folder):
    env = make(world_folder, render_mode="rgb_array", latents_in_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space")  # ours are in the data's units
        check_env(env.unwrapped)


def test_registering_needs_no_torch():
    code = "import sys, dreamer_hf.envs, dreamer_hf.envs.action_format; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_module_can_be_named_in_the_id(world_folder):
    assert gymnasium.make(f"dreamer_hf.envs:{ID}", model=str(world_folder)).reset()[0].dtype == np.uint8


def test_spaces_come_from_the_world(env):
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    assert env.action_space == gymnasium.spaces.Box(np.float32([0, 10]), np.float32([512, 500]))
    assert env.unwrapped.action_names == ("target_x", "target_y")
    assert env.metadata["render_fps"] == 20


def test_frames_are_those_of_the_plain_rollout(env, world):
    """The first draws of a seeded environment choose the start and the seed of the noise."""
    frames = frames_of(env, seed=7)
    rng = gymnasium.utils.seeding.np_random(7)[0]
    start = make_starts(num_starts=4)[int(rng.random() * 4)]
    np.testing.assert_array_equal(frames[0], start.pixel_values_videos[0, -1].permute(1, 2, 0))
    generator = SeededNoise(int(rng.integers(2**63)))
    rollout = world.start_rollout(start, generator=generator)
    for frame, action in zip(frames[1:], ACTIONS):
        pixels = rollout.step(torch.from_numpy(action)[None]).pixel_values[0]
        np.testing.assert_array_equal(frame, (pixels * 255).round().byte().permute(1, 2, 0))


def test_a_seed_decides_the_dream_and_actions_steer_it(env):
    first = frames_of(env, seed=3)
    later = frames_of(env)
    np.testing.assert_array_equal(frames_of(env, seed=3), first)
    np.testing.assert_array_equal(frames_of(env), later)
    assert (later[1:] != first[1:]).any()
    assert (frames_of(env, ACTIONS[::-1], seed=3)[1:] != first[1:]).any()


def test_dreams_begin_where_the_options_say(env):
    starts = make_starts(num_starts=4).pixel_values_videos
    for index in range(4):
        frame, _ = env.reset(options={"start_index": index})
        np.testing.assert_array_equal(frame, starts[index, -1].permute(1, 2, 0))
    given = np.random.default_rng(1).integers(0, 256, (5, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    options = {"frames": given, "actions": ACTIONS[:5]}
    np.testing.assert_array_equal(env.reset(options=options)[0], given[-1])
    with_actions = frames_of(env, seed=1, options=options)
    assert (frames_of(env, seed=1, options={"frames": given})[1:] != with_actions[1:]).any()
    masked = options | {"action_mask": np.zeros(5, bool)}
    np.testing.assert_array_equal(
        frames_of(env, seed=1, options={"frames": given}), frames_of(env, seed=1, options=masked)
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": 2}, "no option 'start'"),
        ({"start_index": 4}, "choose from 0 to 3"),
        ({"start_index": 0.5}, "names no start"),
        ({"frames": np.zeros((2, 8, 8, 3), np.uint8)}, "8x8 pixels"),
        ({"frames": np.zeros((2, 16, 16, 3))}, "give uint8"),
        ({"frames": np.zeros((2, 16, 16, 3), np.uint8), "actions": np.zeros((2, 3))}, "actions of width 3"),
        ({"frames": np.zeros((2, 16, 16, 3), np.uint8), "actions": np.zeros((3, 2))}, "start frames must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(env, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [(np.zeros(3), "shape"), (np.array([np.nan, 0]), "not a finite number"), (np.zeros((2, 2)), "shape")],
)
def test_actions_that_do_not_fit_are_refused(world_folder, action, sentence):
    env = make(world_folder, disable_env_checker=True)
    env.reset()
    with pytest.raises(ValueError, match=sentence):
        env.step(action)


def test_rewards_and_ends_come_from_functions_of_the_transition(world_folder):
    seen = []

    def reward(transition):
        seen.append(transition)
        return transition.frames.mean(axis=(1, 2, 3)) - transition.actions[:, 0]

    env = make(world_folder, reward_fn=reward, terminated_fn=lambda transition: transition.steps >= 3)
    first, _ = env.reset(seed=0)
    steps = [env.step(action) for action in ACTIONS[:3]]
    assert [ended for _, _, ended, _, _ in steps] == [False, False, True]
    for action, (frame, value, *_) in zip(ACTIONS, steps):
        assert value == pytest.approx(frame.mean() - action[0], rel=1e-6)
    assert seen[0].latents.shape == (1, 4, 8)
    np.testing.assert_array_equal(seen[0].previous_frames[0], first)
    np.testing.assert_array_equal(seen[2].previous_frames[0], steps[1][0])

    env = make(world_folder, reward_fn=lambda transition: 1.0)
    env.reset()
    with pytest.raises(ValueError, match=r"reward_fn gave shape \(\): it must give one value a row"):
        env.step(ACTIONS[0])


def test_latents_in_the_info(world_folder, world):
    env = make(world_folder, latents_in_info=True)
    _, info = env.reset(options={"start_index": 1})
    start = make_starts(num_starts=4)[1]
    with torch.no_grad():
        latents = world.tokenizer.encode(start).latents
    np.testing.assert_allclose(info["latents"], latents[0, -1].numpy(), atol=1e-5)
    *_, info = env.step(ACTIONS[0])
    assert info["latents"].shape == (4, 8) and info["latents"].dtype == np.float32
    assert "latents" not in make(world_folder).reset()[1]


@pytest.mark.parametrize("copied", [lambda env: env.unwrapped.clone(), copy.deepcopy], ids=["clone", "deepcopy"])
def test_a_clone_has_the_same_future_and_leaves_the_original_alone(env, copied):
    expected = frames_of(env, seed=5)
    env.reset(seed=5)
    for action in ACTIONS[:3]:
        env.step(action)
    twin = copied(env)
    assert twin.unwrapped.world is env.unwrapped.world
    for rest in (twin, env):
        np.testing.assert_array_equal([rest.step(action)[0] for action in ACTIONS[3:]], expected[4:])
    np.testing.assert_array_equal(twin.reset()[0], env.reset()[0])


def test_a_time_limit_cuts(world_folder):
    env = make(world_folder, max_episode_steps=2)
    env.reset()
    assert [env.step(action)[3] for action in ACTIONS[:2]] == [False, True]


def test_a_window_shows_the_dream(world_folder):
    env = make(world_folder, render_mode="human")
    env.reset(seed=0)
    frame, *_ = env.step(ACTIONS[0])
    window = env.unwrapped._viewer._window
    from dreamer_hf.play.devices import pygame

    shown = pygame.surfarray.array3d(window.surface.subsurface(window.image)).swapaxes(0, 1)
    scale = window.image.w // IMAGE_SIZE
    np.testing.assert_array_equal(shown[::scale, ::scale], frame)
    env.close()


def test_images_are_the_observations(world_folder):
    env = make(world_folder, render_mode="rgb_array")
    frame, _ = env.reset()
    np.testing.assert_array_equal(env.render(), frame)


def test_a_loaded_world_takes_frames_or_starts(world, tmp_path):
    env = make(world)
    with pytest.raises(ValueError, match="there are no start frames"):
        env.reset()
    env.reset(options={"frames": np.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)})
    assert make(world, start=make_starts()).reset(seed=0)[0].any()
    with pytest.raises(ValueError, match="comes with its device"):
        make(world, device="cpu")
    with pytest.raises(ValueError, match="there is no such folder"):
        make(tmp_path / "nowhere")


MIXED = {
    "action_dim": 4,
    "action_names": ["x", "gripper", "y", "mode"],
    "action_num_classes": [0, 2, 0, 3],
    "action_stats": {"mean": [0.0] * 4, "std": [1.0] * 4, "min": [-3, 0, -2, 0], "max": [3, 1, 2, 2]},
}


def test_categorical_components_have_separate_spaces():
    world, starts = make_world(**MIXED), make_starts(action_dim=4)
    starts.actions[:] = 0
    env, flat = (make(world, start=starts, flat_actions=flat) for flat in (False, True))
    spaces = env.action_space.spaces
    assert spaces["continuous"] == gymnasium.spaces.Box(np.float32([-3, -2]), np.float32([3, 2]))
    assert spaces["categorical"] == gymnasium.spaces.MultiDiscrete([2, 3])
    assert flat.action_space.shape == (4,)
    env.action_space.seed(0)
    samples = [env.action_space.sample() for _ in range(5)]
    raw = [(c[0], d[0], c[1], d[1]) for c, d in ((s["continuous"], s["categorical"]) for s in samples)]
    np.testing.assert_array_equal(frames_of(env, samples, seed=0), frames_of(flat, np.float32(raw), seed=0))
    with pytest.raises(ValueError, match="class that does not exist"):
        flat.step(np.float32([0, 0, 0, 3]))
    with pytest.raises(ValueError, match="a dict of"):
        make(world, start=starts, disable_env_checker=True).unwrapped.step(np.zeros(4))


@pytest.mark.parametrize(
    ("classes", "space"),
    [([2, 3], gymnasium.spaces.MultiDiscrete([2, 3])), ([5], gymnasium.spaces.Discrete(5))],
)
def test_purely_categorical_actions(classes, space):
    fields = {"action_names": None, "action_stats": None, "action_num_classes": classes, "action_dim": len(classes)}
    starts = make_starts(action_dim=len(classes))
    starts.actions[:] = 0
    env = make(make_world(**fields), start=starts)
    assert env.action_space == space
    check_env(env.unwrapped, skip_render_check=True)


def test_a_component_that_is_constant_in_the_data_can_be_rescaled():
    stats = {"mean": [250.0, 7.0], "std": [100.0, 1.0], "min": [0.0, 7.0], "max": [512.0, 7.0]}
    env = make(make_world(action_stats=stats), start=make_starts())
    assert (env.action_space.low < env.action_space.high).all()
    scaled = gymnasium.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    scaled.reset(seed=0)
    frame, *_ = scaled.step(np.zeros(2, np.float32))
    env.reset(seed=0)
    np.testing.assert_array_equal(frame, env.step(np.float32([256, 7]))[0])

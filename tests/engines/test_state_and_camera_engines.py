"""Worlds with a state and several cameras on ONNX Runtime: as dreams, as environments, and in play."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamer_hf.cli.application import dreamer, invoke
from dreamer_hf.dreams import Dreams
from dreamer_hf.envs.vector import DreamerWorldVectorEnv
from dreamer_hf.envs.world import DreamerWorldEnv
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.start_frames import save_start_frames
from tiny import ARM, IMAGE_SIZE, build_once, make_arm_starts, make_starts, make_world

pytestmark = pytest.mark.slow  # exporting takes seconds


@pytest.fixture(scope="module")
def arm():
    return make_world(**ARM)


@pytest.fixture(scope="module")
def arm_export(tmp_path_factory, arm):
    def build(folder):
        export_onnx(arm, folder, starts=make_arm_starts(knows_state=False), max_error=1.0)

    return build_once(tmp_path_factory, "arm_export", build)


@pytest.fixture
def pair(arm, arm_export):
    """The same dreams of both engines."""
    engine = OnnxWorld.from_pretrained(arm_export, threads=1)
    return Dreams(arm, make_arm_starts(knows_state=False)), Dreams(engine, engine.starts)


def step_both(pair, members, count):
    for _ in range(count):
        for dreams, each in zip(pair, members):
            dreams.step(each, [np.array([100 + 9 * dream.step, 300 - 5 * dream.step]) for dream in each])
        assert_same(members)


def assert_same(members):
    for theirs, ours in zip(*members, strict=True):
        assert np.abs(ours.frame.astype(int) - theirs.frame).max() <= 1
        np.testing.assert_allclose(ours.state, theirs.state, rtol=1e-3, atol=1e-3)


def test_dreams_of_both_engines_show_the_same_views_and_states(pair):
    members = [dreams.begin([0, 1], [5, 6]) for dreams in pair]
    assert pair[1].frame_size == pair[0].frame_size == (IMAGE_SIZE, 2 * IMAGE_SIZE)
    assert pair[1].state_space.labels == pair[0].state_space.labels == ("lift [mm]", "grip")
    assert_same(members)
    step_both(pair, members, 3)
    branches = [dreams.clone(each) for dreams, each in zip(pair, members)]
    step_both(pair, [each[1:] for each in members], 2)
    for dreams, each in zip(pair, members):
        dreams.restart([each[0]], [1], [9])
    step_both(pair, members, 2)
    for dreams, each, branch in zip(pair, members, branches):
        dreams.rewind(each, branch)
    assert_same(members)
    step_both(pair, members, 2)


def test_each_engine_takes_the_start_frames_of_the_other(arm, pair):
    engine = pair[1].world
    members = [
        Dreams(arm, engine.starts).begin([0, 1], [4, 5]),
        Dreams(engine, make_arm_starts(knows_state=False)).begin([0, 1], [4, 5]),
    ]
    assert_same(members)


def test_environments_give_pixels_and_state(arm_export):
    env = DreamerWorldEnv(str(arm_export), engine="onnx", threads=1)
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=3)
    second, *_ = env.step(np.float32([100, 200]))
    assert first["pixels"].shape == (IMAGE_SIZE, 2 * IMAGE_SIZE, 3) and first["state"].shape == (2,)
    assert not np.array_equal(first["state"], second["state"])
    rows = DreamerWorldVectorEnv(str(arm_export), 2, engine="onnx", threads=1)
    observations, _ = rows.reset(seed=3)
    np.testing.assert_array_equal(observations["state"][0], first["state"])
    assert isinstance(rows.single_observation_space, gymnasium.spaces.Dict)
    frames = np.zeros((3, 2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    observation, _ = env.reset(options={"frames": frames, "states": np.full((3, 2), 0.5)})
    assert not observation["pixels"].any() and observation["state"].tolist() == [0.5, 0.5]


def test_start_frames_of_another_robot_are_refused(pair):
    with pytest.raises(ValueError, match=r"1 camera\(s\) but the world has 2 \(front, wrist\)"):
        pair[1].begin(make_starts()[0], [0])
    other = make_arm_starts()[0]
    other.states = other.states.repeat(1, 1, 2)
    with pytest.raises(ValueError, match=r"states of width 4 but the world has 2 \(lift, grip\)"):
        pair[1].begin(other, [0])


def test_play_shows_gauges_of_the_exported_world(arm_export, capsys, monkeypatch):
    pytest.importorskip("pygame")
    from dreamer_hf.play.window import PlayWindow

    drawn, draw = [], PlayWindow.draw
    monkeypatch.setattr(PlayWindow, "draw", lambda window, view: (drawn.append((window, view)), draw(window, view)))
    arguments = ["--engine", "onnx", "--input", "script", "--steps", "2", "--threads", "1"]
    invoke(dreamer, ["play", "--model", str(arm_export), *arguments], "dreamer")
    window, view = drawn[-1]
    assert window.state_space.names == ("lift", "grip") and view.state.shape == (2,)
    assert view.frames[-1].shape == (IMAGE_SIZE, 2 * IMAGE_SIZE, 3)
    assert "Engine: ONNX Runtime" in capsys.readouterr().out


def test_a_world_is_exported_for_auto(arm, tmp_path, monkeypatch):
    from dreamer_hf.engines import engine_choice
    from dreamer_hf.engines.opening import open_world
    from dreamer_hf.play import PlayOptions

    monkeypatch.setattr(engine_choice, "has_gpu", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    arm.save_pretrained(tmp_path / "arm")
    save_start_frames(tmp_path / "arm", make_arm_starts())
    opened = open_world(str(tmp_path / "arm"), PlayOptions(threads=1))
    assert isinstance(opened.world, OnnxWorld) and opened.world.camera_names == ["front", "wrist"]
    assert opened.starts.states.shape == (2, 3, 2)

"""Exports of worlds with a state or several cameras: PyTorch's dreams, their rows, and what is refused."""

import json

import numpy as np
import pytest
import torch

from dreamer_hf.onnx import Manifest, OnnxStarts, OnnxWorld
from dreamer_hf.onnx.export_check import compare_with_pytorch
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.start_frames import StartFrames
from tiny import CAMERAS, STATE, build_once, make_starts, make_world, tiny_states, tiny_world

KINDS = {
    "a state": ({}, STATE),
    "two cameras": ({}, CAMERAS),
    "both, as velocities": ({}, STATE | CAMERAS | {"prediction": "v"}),
    "both, without registers, of a tokenizer of single frames": (
        {"context_length": 1},
        STATE | CAMERAS | {"num_register_tokens": 0},
    ),
    "a state without statistics, in one token": ({}, {"state_dim": 3}),
}
BOTH = STATE | CAMERAS


def context(world, rows=2, frames=5, seed=0) -> StartFrames:
    """Random start frames; some frames have no action or no state."""
    config, generator = world.config.dynamics_config, torch.Generator().manual_seed(seed)
    cameras = () if config.num_cameras == 1 else (config.num_cameras,)
    shape = rows, frames, *cameras, 3, *world.config.tokenizer_config.frame_size
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    actions, known = torch.rand(rows, frames, 2, generator=generator), torch.ones(rows, frames, dtype=torch.bool)
    known[0, 1] = known[-1, -1] = False
    if not config.state_dim:
        return StartFrames(images, actions, known.roll(1))
    return StartFrames(images, actions, known.roll(1), tiny_states(rows, frames, seed=seed), known)


def sources(*seeds):
    return [SeededNoise(seed) for seed in seeds]


def action_of(index: int, rows: int) -> np.ndarray:
    return np.random.default_rng(index).uniform(-1, 1, (rows, 2)).astype(np.float32)


@pytest.fixture(scope="session")
def world():
    return tiny_world(dynamics_changes=BOTH)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, world):
    return build_once(
        tmp_path_factory,
        "state-and-cameras",
        lambda folder: export_onnx(world, folder, starts=context(world), name="arm"),
    )


@pytest.fixture
def engine(folder):
    return OnnxWorld.from_pretrained(folder, threads=1)


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours.latents, theirs.latents.numpy(), atol=1e-4)
    np.testing.assert_allclose(ours.pixel_values, theirs.pixel_values.numpy(), atol=1e-4)
    if theirs.state is None:
        assert ours.state is None
    else:
        np.testing.assert_allclose(ours.state, theirs.state.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("num_inference_steps", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_dreams_what_pytorch_dreams(kind, num_inference_steps, tmp_path):
    world = tiny_world(*KINDS[kind])
    starts = context(world)
    export_onnx(world, tmp_path / "export", starts=starts, max_error=1.0)
    engine = OnnxWorld.from_pretrained(tmp_path / "export", threads=1)
    theirs = world.start_rollout(starts, num_inference_steps=num_inference_steps, generator=sources(3, 4))
    for given in (engine.starts, starts):
        ours = engine.start_rollout(given, num_inference_steps=num_inference_steps, generator=sources(3, 4))
        expected = theirs.clone()
        for index in range(8):
            action, mask = action_of(index, 2), np.array([index % 3 > 0, True])
            assert_same(ours.step(action, mask), expected.step(torch.from_numpy(action), torch.from_numpy(mask)))


@pytest.mark.slow
def test_starts_without_a_state_and_other_rows_dream_what_pytorch_dreams(world, engine):
    starts = context(world)
    frames = starts.pixel_values_videos
    theirs = world.start_rollout(frames, generator=sources(1, 2))
    ours = engine.start_rollout(frames.numpy(), generator=sources(1, 2))
    for index in range(6):
        if index == 2:  # one row begins again, with a state
            for rollout in (theirs, ours):
                rollout.reset(starts[1], rows=[1], generator=sources(9))
        if index == 4:  # the rows leave and come back in another order
            theirs = type(theirs).join([theirs.clone(rows=[1]), theirs.clone(rows=[0])])
            ours = type(ours).join([ours.clone(rows=[1]), ours.clone(rows=[0])])
        action = action_of(index, 2)
        assert_same(ours.step(action), theirs.step(torch.from_numpy(action)))


def test_noise_that_is_given_is_used(world, engine):
    starts, random = context(world), np.random.default_rng(0)
    shapes = {"start_noise": (2, 6, 5), "commit_noise": (2, 6, 5), "start_state_noise": (2, 3)}
    noise = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    first = {
        "context_noise": random.standard_normal((2, 5, 6, 5)).astype(np.float32),
        "context_state_noise": random.standard_normal((2, 5, 3)).astype(np.float32),
    }
    ours = engine.start_rollout(starts, generator=sources(1, 2), **first)
    theirs = world.start_rollout(starts, generator=sources(1, 2), **first)
    for index in range(3):
        action = action_of(index, 2)
        assert_same(ours.step(action, **noise), theirs.step(torch.from_numpy(action), **noise))


def test_a_kept_copy_is_the_way_back_and_a_failed_step_changes_nothing(engine, monkeypatch):
    rollout = engine.start_rollout(engine.starts, generator=sources(1, 2))
    rollout.step(action_of(0, 2))
    kept = rollout.clone()
    expected = [rollout.step(action_of(index, 2)) for index in (1, 2)]
    rollout.copy_(kept)
    with monkeypatch.context() as patch:
        patch.setattr(engine.graphs["decoder"], "run", lambda feeds, outputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rollout.step(action_of(1, 2))
    for index, before in zip((1, 2), expected, strict=True):
        after = rollout.step(action_of(index, 2))
        np.testing.assert_array_equal(after.state, before.state)
        np.testing.assert_array_equal(after.pixel_values, before.pixel_values)


def test_the_manifest_says_what_state_and_cameras_are(folder, engine):
    manifest = Manifest.read(folder / "dreamer_onnx.json")
    assert json.loads(manifest.to_json())["format_version"] == 2
    assert manifest.cameras == ["front", "wrist"] and manifest.latents == {"num_tokens": 6, "dim": 5}
    assert manifest.state["names"] == ["shoulder", "elbow", "grip"] and manifest.state["units"] == ["rad", "rad", ""]
    assert manifest.state["std"] == [0.5, 4.0, 1.0] and manifest.state["low"] == [0.0, -9.0, 30.0]
    assert 0 < manifest.check["max_state_error"] < 1e-3
    assert engine.state_space.labels == ("shoulder [rad]", "elbow [rad]", "grip")
    assert engine.starts.pixel_values_videos.shape == (2, 5, 2, 3, 16, 16) and engine.starts.states.shape == (2, 5, 3)
    assert not engine.starts.state_mask[0, 1] and engine.frame_size == (16, 16)


def test_the_manifest_of_a_plain_world_is_as_before(tmp_path):
    export_onnx(make_world(), tmp_path / "export", starts=make_starts())
    content = json.loads((tmp_path / "export" / "dreamer_onnx.json").read_text())
    assert content["format_version"] == 1 and not {"state", "cameras"} & content.keys()
    assert "max_state_error" not in content["check"]


def test_the_check_sees_a_wrong_state(world, folder):
    manifest = Manifest.read(folder / "dreamer_onnx.json")
    assert compare_with_pytorch(world, folder, manifest, None)["max_state_error"] < 1e-3
    manifest.state["std"][1] *= 1.1
    assert compare_with_pytorch(world, folder, manifest, None)["max_state_error"] > 1e-3


def test_what_does_not_fit_the_cameras_and_the_state_is_refused(engine):
    starts = engine.starts
    frames = starts.pixel_values_videos
    with pytest.raises(ValueError, match=r"has the cameras front, wrist: expected frames of shape \(B, T, 2, 3, 16"):
        engine.start_rollout(frames[:, :, 0])
    with pytest.raises(ValueError, match=r"states \(shoulder, elbow, grip\) of shape \(2, 5, 3\), got \(2, 5, 2\)"):
        engine.start_rollout(frames, states=starts.states[..., :2])
    with pytest.raises(ValueError, match="expected finite states"):
        engine.start_rollout(frames, states=np.full((2, 5, 3), np.nan))
    with pytest.raises(ValueError, match="start frames, which bring their own"):
        engine.start_rollout(starts, states=starts.states)
    with pytest.raises(ValueError, match="noise of shape"):
        engine.start_rollout(starts).step(None, start_state_noise=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        OnnxStarts(frames, starts.actions, starts.action_mask, None, np.full((2, 5, 3), np.float32(np.inf)))


def test_a_world_without_a_state_refuses_one(tmp_path):
    export_onnx(make_world(), tmp_path / "export", starts=make_starts())
    engine = OnnxWorld.from_pretrained(tmp_path / "export", threads=1)
    with pytest.raises(ValueError, match="the world has no state"):
        engine.start_rollout(engine.starts.pixel_values_videos, states=np.zeros((2, 3, 1)))

"""Worlds of several cameras: one tokenizer for all, whose latents stand next to each other."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from plain_dreamer4 import plain_dynamics

from dreamer_hf import DreamerWorldModel
from dreamer_hf.compile_rollout import decoder_pass, dynamics_pass
from dreamer_hf.rollout import DreamerRollout
from dreamer_hf.start_frames import StartFrames, load_start_frames, save_start_frames
from tiny import CAMERAS, STATE, rand, randn, tiny_dynamics, tiny_states, tiny_world


def camera_world(**changes) -> DreamerWorldModel:
    return tiny_world(dynamics_changes=CAMERAS | changes)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_latents_are_those_of_each_camera_one_after_the_other():
    world, frames = camera_world(), rand(2, 4, 2, 3, 16, 16)
    latents = world.encode(frames).latents
    assert latents.shape == (2, 4, 6, 5)
    for camera, part in enumerate(latents.split(3, dim=2)):
        torch.testing.assert_close(part, world.tokenizer.encode(frames[:, :, camera]).latents)
    decoded = world.decode(latents)
    assert decoded.shape == frames.shape
    for camera, part in enumerate(latents.split(3, dim=2)):
        torch.testing.assert_close(decoded[:, :, camera], world.tokenizer.decode(part).pixel_values_videos)


def test_the_plain_model_computes_the_same():
    dynamics = tiny_dynamics(**CAMERAS)
    plain, latents = plain_dynamics(dynamics), randn(2, 4, 6, 5)
    levels = torch.randint(16, (2, 4), generator=seeded())
    actions, mask = randn(2, 4, 2), rand(2, 4) < 0.7
    with torch.no_grad():
        ours = dynamics(latents, levels, 0 * levels, actions, mask).latents
        expected = plain(latents, levels, 0 * levels, actions, mask)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_an_embedding_tells_the_cameras_apart():
    """What is dreamed for the first camera changes with its embedding; one camera has none."""
    dynamics, latents, ids = tiny_dynamics(**CAMERAS), randn(1, 3, 6, 5), torch.zeros(1, 3, dtype=torch.int64)
    before = dynamics(latents, ids, ids).latents
    with torch.no_grad():
        dynamics.camera_embeddings[0] += 1
    assert not torch.allclose(before, dynamics(latents, ids, ids).latents)
    assert tiny_dynamics().camera_embeddings is None


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, STATE], ids=["frames alone", "with a state"])
def test_cached_equals_uncached(changes):
    world, frames, actions = camera_world(**changes), rand(2, 4, 2, 3, 16, 16), randn(2, 16, 2)
    given = {"states": tiny_states(2, 4)} if changes else {}
    cached, uncached = (
        world.generate(frames, actions, generator=seeded(), use_cache=each, **given) for each in (True, False)
    )
    assert cached.pixel_values_videos.shape == (2, 12, 2, 3, 16, 16)
    torch.testing.assert_close(cached.pixel_values_videos, uncached.pixel_values_videos, atol=1e-4, rtol=1e-4)


def test_rollouts_of_several_cameras_can_be_copied_joined_rewound_and_restarted():
    world, frames, actions = camera_world(), rand(3, 4, 2, 3, 16, 16), randn(3, 14, 2)
    seeds = [seeded(seed) for seed in range(3)]
    expected = world.generate(frames, actions, generator=[seeded(seed) for seed in range(3)]).pixel_values_videos
    rollout = world.start_rollout(frames, actions[:, :4], generator=seeds)
    first = [rollout.step(actions[:, index]).pixel_values for index in range(4, 9)]
    assert first[0].shape == (3, 2, 3, 16, 16)
    order = [2, 0, 1]
    joined = DreamerRollout.join([rollout.clone(rows=[row]) for row in order])
    merged = [joined.step(actions[order, index]).pixel_values for index in range(9, 14)]
    merged = [frame[[order.index(row) for row in range(3)]] for frame in merged]
    torch.testing.assert_close(torch.stack(first + merged, dim=1), expected, atol=1e-4, rtol=1e-4)
    rollout.reset(rows=[1], generator=[seeded(1)])
    again = rollout.step(actions[:, 4]).pixel_values
    torch.testing.assert_close(again[1], expected[1, 0], atol=1e-4, rtol=1e-4)
    others = frames.flip(0)
    rollout.reset(others[:1], actions[:1, :4], rows=[2], generator=[seeded(5)])
    alone = world.start_rollout(others[:1], actions[:1, :4], generator=[seeded(5)])
    torch.testing.assert_close(
        rollout.step(actions[:, 5]).pixel_values[2], alone.step(actions[2:, 5]).pixel_values[0], atol=1e-4, rtol=1e-4
    )


def test_saved_worlds_and_start_frames_keep_their_cameras(tmp_path):
    world = camera_world()
    pixels = (rand(2, 4, 2, 3, 16, 16) * 255).byte()
    starts = StartFrames(pixels, randn(2, 4, 2), torch.ones(2, 4, dtype=torch.bool))
    starts.check_fits(world.config)
    save_start_frames(tmp_path, starts)
    world.save_pretrained(tmp_path)
    loaded, starts = DreamerWorldModel.from_pretrained(tmp_path), load_start_frames(tmp_path)
    assert loaded.config.dynamics_config.camera_names == ["front", "wrist"]
    steps = [each.start_rollout(starts[1], generator=seeded()).step(None) for each in (world, loaded)]
    assert torch.equal(steps[0].pixel_values, steps[1].pixel_values)
    assert loaded(pixels).pixel_values_videos.shape == pixels.shape


def test_other_cameras_are_refused_in_one_sentence():
    world, frames = camera_world(), rand(1, 4, 2, 3, 16, 16)
    for wrong in (frames[:, :, 0], frames.repeat(1, 1, 2, 1, 1, 1)):
        with pytest.raises(
            ValueError, match=r"the world has the cameras front, wrist: expected .* \(B, T, 2, 3, 16, 16\)"
        ):
            world.start_rollout(wrong)
        with pytest.raises(ValueError, match="the world has the cameras front, wrist"):
            world.encode(wrong)
    with pytest.raises(ValueError, match=r"expected frames of shape \(B, T, 3, 16, 16\)"):
        tiny_world().start_rollout(frames)
    pixels, mask = torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8), torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"show 1 camera\(s\) but the world has 2 \(front, wrist\)"):
        StartFrames(pixels, torch.zeros(1, 4, 2), mask).check_fits(world.config)
    with pytest.raises(StrictDataclassError, match="cannot be shared by 2 cameras"):
        tiny_dynamics(camera_names=["a", "b"], num_latent_tokens=5)
    with pytest.raises(StrictDataclassError, match="a different name for each camera"):
        tiny_dynamics(camera_names=["a", "a"], num_latent_tokens=6)
    with pytest.raises((ValueError, StrictDataclassError), match="num_latent_tokens=6 for 2 cameras"):
        tiny_world(dynamics_changes=CAMERAS | {"num_latent_tokens": 4})


@pytest.mark.slow
def test_the_passes_of_a_world_with_a_state_can_be_traced_by_the_compiler():
    """Traced only: generating code, which other tests do, takes minutes."""
    world = camera_world(**STATE)
    frames, rollouts = rand(2, 2, 2, 3, 16, 16), []
    for _ in range(2):
        generators = [seeded(1), seeded(2)]
        rollouts.append(world.start_rollout(frames, states=tiny_states(2, 2), generator=generators))
    plain, traced = rollouts
    traced.latent_rollout._dynamics_pass = torch.compile(dynamics_pass, dynamic=False, backend="eager")
    traced._decoder_pass = torch.compile(decoder_pass, dynamic=False, backend="eager")
    for number in range(3):
        ours, theirs = (rollout.step(randn(2, 2, seed=number)) for rollout in (traced, plain))
        for name in ("pixel_values", "latents", "state"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)

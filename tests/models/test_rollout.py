"""Rollouts: cached equals uncached, state lives in the rollout, and there is no horizon."""

import time

import psutil
import pytest
import torch

from dreamer_hf.cache_dreamer import additive_mask
from dreamer_hf.modeling_layers import decode_attention_forward, eager_attention_forward
from tiny import rand, randn, tiny_dynamics, tiny_world

WINDOW = 3

# What differs from the published models, and how many context frames the rollout starts from.
WORLDS = {
    "one group": ({}, {"num_hidden_layers": 4}, 7),
    "several groups": ({"num_encoder_layers": 8, "num_decoder_layers": 8}, {"num_hidden_layers": 12}, 5),
    "three action tokens": ({}, {"num_action_tokens": 3}, 1),
    "all options": ({}, {"num_key_value_heads": 2, "qk_norm": True, "attn_logit_softcapping": 2.0}, 2),
    "velocities": ({}, {"num_hidden_layers": 4, "prediction": "v", "step_size_conditioning": False}, 3),
    "offset 0": ({}, {"num_hidden_layers": 4, "action_offset": 0}, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_cached_equals_uncached_past_five_windows(world):
    *changes, context_frames = world
    world = tiny_world(*changes)
    frames = rand(2, context_frames, 3, 16, 16)
    actions = torch.cat([randn(2, context_frames, 2, seed=1), randn(2, 5 * WINDOW + 2, 2)], dim=1)
    action_mask = torch.cat([rand(2, context_frames, seed=3), rand(2, 5 * WINDOW + 2, seed=2)], dim=1) < 0.7
    outputs = [
        world.generate(frames, actions, action_mask, use_cache=use_cache, generator=torch.Generator().manual_seed(0))
        for use_cache in (True, False)
    ]
    torch.testing.assert_close(outputs[0].latents, outputs[1].latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs[0].pixel_values_videos, outputs[1].pixel_values_videos, atol=1e-4, rtol=1e-4)


def dream(rollout, actions):
    """Steps through actions (B,F,a); returns latents (B,F,N_z,d_z)."""
    return torch.stack([rollout.step(actions[:, i]).latents for i in range(actions.shape[1])], dim=1)


def after_unlabeled_frames(num_frames, actions):
    """Actions and mask of so many frames without an action, followed by frames with the given actions (B,F,a)."""
    context = torch.zeros(len(actions), num_frames, actions.shape[2])
    mask = torch.arange(num_frames + actions.shape[1]) >= num_frames
    return torch.cat([context, actions], dim=1), mask.expand(len(actions), -1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_merged_and_separate_commit_are_equal():
    world, frames, actions = tiny_world(), rand(2, 4, 3, 16, 16), randn(2, 12, 2)
    rollouts = [world.start_rollout(frames, generator=seeded()) for _ in range(2)]
    rollouts[1].latent_rollout.merge_commit = False
    merged, separate = (dream(rollout, actions) for rollout in rollouts)
    torch.testing.assert_close(merged, separate, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_every_step_size_of_the_grid_is_cached_right():
    dynamics, latents, future = tiny_dynamics(), randn(1, 2, 3, 5), randn(1, 8, 2)
    actions = after_unlabeled_frames(2, future)
    for steps in (1, 2, 16):
        arguments = {"num_inference_steps": steps, "context_signal_level": 0.5}
        cached = dynamics.generate(latents, *actions, generator=seeded(), **arguments).latents
        uncached = dynamics.generate(latents, *actions, generator=seeded(), use_cache=False, **arguments).latents
        torch.testing.assert_close(cached, uncached, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_plain_flow_matching_dreams_with_euler_steps_along_the_velocity_at_the_finest_step_size(steps):
    """`z <- z + v / K` with the last projection's v, whatever number of steps K the rollout takes."""
    dynamics, velocity = tiny_dynamics(prediction="v", step_size_conditioning=False), tiny_dynamics()
    velocity.load_state_dict(dynamics.state_dict())
    context, action, noise = randn(2, 2, 3, 5), randn(2, 1, 2), randn(2, 3, 3, 5, seed=1)
    levels = torch.full((2, 3), int(0.9 * 16))
    actions, mask = torch.cat([torch.zeros(2, 2, 2), action], 1), torch.tensor([[False, False, True]] * 2)
    frames = torch.cat([0.1 * noise[:, :2] + 0.9 * context, noise[:, 2:]], 1)
    for step in range(steps):
        levels[:, 2] = 16 * step // steps
        with torch.no_grad():
            v = velocity(frames, levels, torch.zeros_like(levels), actions, mask).latents[:, 2]
        frames[:, 2] += v / steps
    rollout = dynamics.start_rollout(context, num_inference_steps=steps, context_noise=noise[:, :2])
    dreamed = rollout.step(action[:, 0], start_noise=noise[:, 2]).latents
    torch.testing.assert_close(dreamed, frames[:, 2], atol=1e-4, rtol=1e-4)


def test_two_rollouts_on_one_model_do_not_disturb_each_other():
    world, actions = tiny_world(), randn(1, 9, 2)
    starts = [rand(1, 4, 3, 16, 16, seed=seed) for seed in (1, 2)]
    alone = [dream(world.start_rollout(start, generator=seeded()), actions) for start in starts]
    rollouts = [world.start_rollout(start, generator=seeded()) for start in starts]
    interleaved = [[rollout.step(actions[:, i]).latents for rollout in rollouts] for i in range(9)]
    for index in range(2):
        assert torch.equal(alone[index], torch.stack([pair[index] for pair in interleaved], dim=1))


def test_clone_branches_the_future():
    world, actions = tiny_world(), randn(1, 12, 2)
    rollout = world.start_rollout(rand(1, 4, 3, 16, 16), generator=seeded())
    dream(rollout, actions[:, :5])
    branch = rollout.clone()
    other = dream(branch, -actions[:, 5:])
    continued = dream(rollout, actions[:, 5:])
    straight = dream(world.start_rollout(rand(1, 4, 3, 16, 16), generator=seeded()), actions)
    assert torch.equal(continued, straight[:, 5:])
    assert not torch.allclose(other, continued, atol=1e-3)
    assert branch.frame_index == rollout.frame_index == 16


def memory_of(rollout):
    """Where the keys and values of both caches lie."""
    layers = [layer for cache in rollout.caches for layer in cache.ring_layers]
    return [tensor.data_ptr() for layer in layers for tensor in (layer.keys, layer.values)]


def test_a_rollout_returns_to_a_clone_and_restarts_in_the_same_memory():
    """Otherwise a compiled rollout would be recorded again each time on a GPU."""
    world, actions = tiny_world(), randn(2, 6, 2)
    rollout = world.start_rollout(rand(2, 4, 3, 16, 16), generator=seeded())
    memory = memory_of(rollout)
    kept = rollout.clone()
    first = dream(rollout, actions)
    rollout.copy_(kept)
    assert torch.equal(dream(rollout, actions), first) and torch.equal(dream(kept, actions), first)
    rollout.reset(generator=seeded())
    assert torch.equal(dream(rollout, actions), first)
    assert memory_of(rollout) == memory
    with pytest.raises(ValueError, match="2 row"):
        rollout.copy_(rollout.clone(rows=[0]))


def test_rows_are_cloned_as_often_as_named():
    """A dream in many copies: each copy continues like a clone of the single row."""
    world, actions = tiny_world(), randn(2, 9, 2)
    rollout = world.start_rollout(rand(2, 4, 3, 16, 16), generator=[seeded(1), seeded(2)])
    dream(rollout, actions[:, :5])
    copies = rollout.clone(rows=[1, 0, 1])
    assert copies.batch_size == 3
    futures = randn(3, 4, 2, seed=5)
    frames = torch.stack([copies.step(futures[:, i]).pixel_values for i in range(4)], dim=1)
    for copied, row in enumerate((1, 0, 1)):
        alone = rollout.clone(rows=[row])
        expected = torch.stack([alone.step(futures[copied : copied + 1, i]).pixel_values for i in range(4)], dim=1)
        torch.testing.assert_close(frames[copied : copied + 1], expected, atol=1e-4, rtol=1e-4)
    untouched = dream(world.start_rollout(rand(2, 4, 3, 16, 16), generator=[seeded(1), seeded(2)]), actions)
    torch.testing.assert_close(dream(rollout, actions[:, 5:]), untouched[:, 5:], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_generator_a_row_makes_dreams_that_do_not_depend_on_their_neighbors():
    world, frames, actions = tiny_world(), rand(3, 4, 3, 16, 16), randn(3, 8, 2)
    together = world.start_rollout(frames, generator=[seeded(row) for row in range(3)])
    latents = dream(together, actions)
    for row in range(3):
        alone = dream(world.start_rollout(frames[row : row + 1], generator=seeded(row)), actions[row : row + 1])
        torch.testing.assert_close(latents[row : row + 1], alone, atol=1e-4, rtol=1e-4)
    together.reset(frames[:1], rows=[2], generator=[seeded(0)])
    fresh = world.start_rollout(frames[:1], generator=seeded(0))
    torch.testing.assert_close(dream(together, actions)[2:], dream(fresh, actions[2:]), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="one generator for each of 3 rows, got 2"):
        world.start_rollout(frames, generator=[seeded(), seeded()])
    with pytest.raises(ValueError, match="one by one"):
        together.reset(frames[:1], rows=[2], generator=seeded())


def test_reset_starts_over():
    world, actions = tiny_world(), randn(2, 7, 2)
    first_start, second_start = rand(2, 4, 3, 16, 16, seed=1), rand(2, 2, 3, 16, 16, seed=2)
    noise = randn(2, 4, 3, 5), randn(2, 2, 3, 5)
    rollout = world.start_rollout(first_start, generator=seeded(), context_noise=noise[0])
    first = dream(rollout, actions)
    rollout.latent_rollout.generator = seeded()
    rollout.reset(context_noise=noise[0])
    assert torch.equal(dream(rollout, actions), first)
    rollout.latent_rollout.generator = seeded()
    rollout.reset(second_start, context_noise=noise[1])
    assert rollout.frame_index == 2
    fresh = world.start_rollout(second_start, generator=seeded(), context_noise=noise[1])
    assert torch.equal(dream(rollout, actions), dream(fresh, actions))


@pytest.mark.slow
@pytest.mark.parametrize("context_frames", [1, 9])
@pytest.mark.parametrize("steps_before", [0, 1, 7])
def test_one_row_restarts_alone(context_frames, steps_before):
    """The restarted row equals a fresh rollout, and the other rows continue undisturbed."""
    world, frames = tiny_world(), rand(3, 5, 3, 16, 16)
    new_start, new_actions = rand(1, context_frames, 3, 16, 16, seed=9), randn(1, context_frames, 2, seed=8)
    context_noise = randn(1, context_frames, 3, 5, seed=7)
    before, after = randn(3, steps_before, 2), randn(3, 8, 2, seed=1)
    noise = [(randn(3, 3, 5, seed=100 + i), randn(3, 3, 5, seed=200 + i)) for i in range(steps_before + 8)]

    def steps(rollout, actions, noise, rows=slice(None)):
        outputs = [
            rollout.step(actions[rows, i], start_noise=start[rows], commit_noise=commit[rows])
            for i, (start, commit) in enumerate(noise)
        ]
        latents = [output.latents for output in outputs]
        return (torch.stack(latents, dim=1), outputs[-1].pixel_values) if outputs else None

    rollout = world.start_rollout(frames, context_noise=randn(3, 5, 3, 5))
    undisturbed = rollout.clone()
    steps(rollout, before, noise[:steps_before])
    rollout.reset(new_start, new_actions, rows=[1], context_noise=context_noise)
    latents, pixels = steps(rollout, after, noise[steps_before:])

    fresh = world.start_rollout(new_start, new_actions, context_noise=context_noise)
    fresh_latents, fresh_pixels = steps(fresh, after, noise[steps_before:], rows=[1])
    torch.testing.assert_close(latents[1:2], fresh_latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pixels[1:2], fresh_pixels, atol=1e-4, rtol=1e-4)

    expected, expected_pixels = steps(undisturbed, torch.cat([before, after], dim=1), noise)
    for row in (0, 2):
        torch.testing.assert_close(latents[row], expected[row, steps_before:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pixels[row], expected_pixels[row], atol=1e-5, rtol=1e-5)


def test_actions_steer_from_the_frame_they_are_given_for():
    world, frames, actions = tiny_world(), rand(1, 4, 3, 16, 16), randn(1, 6, 2)
    changed = actions.clone()
    changed[:, 3] += 1
    first, second = (
        world.generate(frames, *after_unlabeled_frames(4, a), generator=seeded()).latents for a in (actions, changed)
    )
    assert torch.equal(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3], atol=1e-4)


@pytest.mark.slow
def test_ten_thousand_steps_in_flat_memory_and_time():
    layers = {"num_hidden_layers": 2, "time_every": 2}
    world = tiny_world({"num_decoder_layers": 2, "time_every": 2}, layers)
    rollout = world.start_rollout(rand(1, 2, 3, 16, 16), generator=seeded(), num_inference_steps=1)
    action = torch.zeros(1, 2)
    process = psutil.Process()
    output, times, memory = None, [], []
    for _ in range(10):
        begin = time.process_time()
        for _ in range(1000):
            output = rollout.step(action)
        times.append(time.process_time() - begin)
        memory.append(process.memory_info().rss)
    assert rollout.frame_index == 10_002
    assert output.pixel_values.isfinite().all()
    cache = rollout.latent_rollout.cache
    assert all(layer.keys.shape[2] == WINDOW + 1 for layer in cache.ring_layers)
    # Ten thousand frames of this world, kept, would be 80 MB.
    assert memory[-1] - memory[1] < 8 * 2**20
    # The machine is noisy: compare the fastest thousands of both halves.
    assert min(times[5:]) < 1.5 * min(times[:5])


def test_positions_far_out_are_as_exact_as_the_first():
    """A rollout that starts at frame 10 million dreams what one that starts at 0 dreams."""
    dynamics, latents, actions = tiny_dynamics(), randn(1, 2, 3, 5), randn(1, 8, 2)
    near, far = (
        dynamics.start_rollout(latents, generator=seeded(), context_noise=randn(1, 2, 3, 5)) for _ in range(2)
    )
    far._cache, _ = far._primed_cache(far.context, (randn(1, 2, 3, 5), None), None, end_position=10_000_002)
    torch.testing.assert_close(dream(near, actions), dream(far, actions), atol=1e-4, rtol=1e-4)


def test_bfloat16_dreams_stay_close():
    """Latents are integrated in float32 whatever the weights' dtype."""
    world, frames, actions = tiny_world(), rand(2, 4, 3, 16, 16), randn(2, 6, 2)
    actions = after_unlabeled_frames(4, actions)
    exact = world.generate(frames, *actions, generator=seeded())
    rounded = world.to(torch.bfloat16).generate(frames, *actions, generator=seeded())
    assert rounded.latents.dtype == rounded.pixel_values_videos.dtype == torch.float32
    # The first frame: later ones see their own rounding errors.
    error = (rounded.latents - exact.latents)[:, 0].square().mean().sqrt()
    assert error < 0.2 * exact.latents[:, 0].std()


def test_refusals():
    world, frames = tiny_world(), rand(1, 2, 3, 16, 16)
    with pytest.raises(ValueError, match="power of two from 1 to 16"):
        world.start_rollout(frames, num_inference_steps=3)
    with pytest.raises(ValueError, match="power of two from 1 to 16"):
        world.start_rollout(frames, num_inference_steps=32)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        world.start_rollout(frames, context_signal_level=1.0)
    with pytest.raises(ValueError, match=r"frames of shape \(B, T, 3, 16, 16\) .*, got \(1, 2, 3, 8, 8\)"):
        world.start_rollout(frames[..., :8, :8])
    rollout = world.start_rollout(frames)
    with pytest.raises(ValueError, match=r"actions of shape \(1, 2\), got \(1, 7\)"):
        rollout.step(torch.zeros(1, 7))
    with pytest.raises(ValueError, match=r"noise of shape \(1, 3, 5\), got \(1, 1\)"):
        rollout.step(torch.zeros(1, 2), start_noise=torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"action_mask of shape \(1,\), got \(2,\)"):
        rollout.step(torch.zeros(1, 2), action_mask=torch.ones(2, dtype=torch.bool))


def test_decode_attention_is_attention():
    """What compiled rollouts on a GPU run (tests/models/test_gpu.py) is plain arithmetic, the same on a CPU."""
    module = tiny_dynamics(num_key_value_heads=2).transformer.layers[-1].self_attn
    query, key, value = randn(3, 8, 2, 8), randn(3, 4, 5, 8, seed=1), randn(3, 4, 5, 8, seed=2)
    mask = additive_mask(torch.tensor([[True, True, False, True, False], [True] * 5]), torch.float32)
    outputs = [
        attend(module, query, key, value, mask, scaling=0.3)[0]
        for attend in (decode_attention_forward, eager_attention_forward)
    ]
    torch.testing.assert_close(*outputs)

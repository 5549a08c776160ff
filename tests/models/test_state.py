"""Worlds with a state: it is noised, denoised and committed with the latents, normalized inside and raw outside."""

import dataclasses

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from plain_dreamer4 import plain_dynamics

from dreamer_hf import DreamerWorldModel
from dreamer_hf.losses import FrameConditions, predicted_context, shortcut_forcing_loss
from dreamer_hf.rollout import DreamerRollout
from dreamer_hf.scheduling_shortcut import add_noise, sample_training_grid
from dreamer_hf.start_frames import StartFrames, load_start_frames, save_start_frames
from tiny import STATE, rand, randn, tiny_dynamics, tiny_states, tiny_world

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
VARIANTS = {"clean": {}, "velocities": {"prediction": "v", "step_size_conditioning": False}}
SOME = torch.tensor([[True, True, False, True], [False, False, True, True]])


def state_world(**changes) -> DreamerWorldModel:
    return tiny_world(dynamics_changes=STATE | changes)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_states_are_normalized_by_the_statistics_and_a_constant_one_is_only_shifted():
    dynamics, states = tiny_dynamics(**STATE), tiny_states(2, 5)
    normalized = dynamics.normalize_states(states)
    torch.testing.assert_close(
        normalized[..., :2], (states[..., :2] - torch.tensor([1.0, -2.0])) / torch.tensor([0.5, 4.0])
    )
    torch.testing.assert_close(normalized[..., 2], states[..., 2] - 30)
    torch.testing.assert_close(dynamics.denormalize_states(normalized), states)


def test_the_plain_model_computes_the_same():
    dynamics = tiny_dynamics(**STATE)
    plain = plain_dynamics(dynamics)
    latents, states, actions = randn(2, 4, 3, 5), randn(2, 4, 3, seed=1), randn(2, 4, 2, seed=2)
    levels, steps = sample_training_grid((2, 4), 16, seeded(), "cpu")
    mask = rand(2, 4, seed=3) < 0.7
    with torch.no_grad():
        output = dynamics(latents, levels, steps, actions, mask, states=states, state_mask=SOME)
        expected = plain(latents, levels, steps, actions, mask, states=(states, SOME))
    torch.testing.assert_close(output.latents, expected[0], **CLOSE)
    torch.testing.assert_close(output.states, expected[1], **CLOSE)
    raw = tiny_states(2, 4)
    torch.testing.assert_close(plain.state_coder.normalize(raw), dynamics.normalize_states(raw))


def test_a_missing_state_has_no_influence_and_may_be_nan():
    dynamics, inputs = tiny_dynamics(**STATE), (randn(2, 4, 3, 5), *[torch.zeros(2, 4, dtype=torch.int64)] * 2)
    states = randn(2, 4, 3, seed=1)
    poisoned = states.masked_fill(~SOME[..., None], torch.nan)
    first, second = (dynamics(*inputs, states=each, state_mask=SOME) for each in (states, poisoned))
    torch.testing.assert_close(first.latents, second.latents)
    torch.testing.assert_close(first.states, second.states)
    none = [dynamics(*inputs, **each) for each in ({}, {"states": poisoned, "state_mask": torch.zeros_like(SOME)})]
    torch.testing.assert_close(none[0].latents, none[1].latents)
    assert not torch.allclose(first.latents, none[0].latents)


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_cached_equals_uncached(changes):
    world = state_world(**changes)
    frames, actions, states = rand(2, 4, 3, 16, 16), randn(2, 18, 2), tiny_states(2, 4)
    cached, uncached = (
        world.generate(frames, actions, generator=seeded(), use_cache=each, states=states, state_mask=SOME)
        for each in (True, False)
    )
    assert cached.states.shape == (2, 14, 3)
    torch.testing.assert_close(cached.states, uncached.states, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(cached.pixel_values_videos, uncached.pixel_values_videos, atol=1e-4, rtol=1e-4)
    others = world.generate(frames, actions, generator=seeded(), states=states + 1, state_mask=SOME)
    assert not torch.allclose(cached.latents, others.latents)


def test_a_step_gives_the_state_of_its_frame_and_rollouts_can_be_copied_joined_and_restarted():
    world = state_world()
    frames, actions, states = rand(2, 4, 3, 16, 16), randn(2, 12, 2), tiny_states(2, 4)
    expected = world.generate(frames, actions, generator=[seeded(0), seeded(1)], states=states).states
    rollout = world.start_rollout(frames, actions[:, :4], generator=[seeded(0), seeded(1)], states=states)
    first = [rollout.step(actions[:, index]).state for index in range(4, 8)]
    parts = [rollout.clone(rows=[0]), rollout.clone(rows=[1])]
    joined = DreamerRollout.join(parts)
    merged = [joined.step(actions[:, index]).state for index in range(8, 12)]
    torch.testing.assert_close(torch.stack(first + merged, dim=1), expected, atol=1e-4, rtol=1e-4)
    rollout.reset(rows=[1], generator=[seeded(1)])
    again = rollout.step(actions[:, 4]).state
    torch.testing.assert_close(again[1], expected[1, 0], atol=1e-4, rtol=1e-4)
    rollout.reset(frames, actions[:, :4], generator=[seeded(0), seeded(1)], states=states)
    torch.testing.assert_close(rollout.step(actions[:, 4]).state, expected[:, 0], atol=1e-4, rtol=1e-4)


def test_the_noise_of_states_is_drawn_after_that_of_latents():
    world, drawn = state_world(), []
    frames = rand(1, 2, 3, 16, 16)
    plain = seeded(3)
    shapes = [(1, 2, 3, 5), (1, 2, 3), (1, 3, 5), (1, 3, 5), (1, 3), (1, 3)]
    drawn = [torch.randn(shape, generator=plain) for shape in shapes]
    given = world.start_rollout(frames, context_noise=drawn[0], context_state_noise=drawn[1])
    ours = world.start_rollout(frames, generator=seeded(3))
    first, second = ours.step(None), given.step(None, None, *drawn[2:])
    assert torch.equal(first.latents, second.latents) and torch.equal(first.state, second.state)
    assert torch.equal(ours.latent_rollout.generator.get_state(), plain.get_state())


def test_with_known_latents_only_the_state_is_generated():
    rollout = state_world().dynamics.start_rollout(randn(2, 3, 3, 5), generator=seeded())
    known = randn(2, 3, 5, seed=7)
    output = rollout.clone().step(randn(2, 2), known_latents=known)
    torch.testing.assert_close(output.latents, known)
    assert not torch.allclose(output.state, rollout.step(randn(2, 2)).state)


def reference_losses(model, latents, noise, states, state_noise, conditions):
    """The objective as in the paper, over latents and states at once: three passes over the batch, in velocities."""
    count, shape = model.config.num_signal_levels, latents.shape
    tau, d = conditions.signal_level_ids / count, 2.0**conditions.step_size_ids / count
    is_flow = conditions.step_size_ids == 0
    half_ids = torch.where(is_flow, 0, conditions.step_size_ids - 1)
    later_ids = torch.where(is_flow, conditions.signal_level_ids, conditions.signal_level_ids + 2**half_ids)

    def as_one(latents, states):
        return torch.cat([latents.flatten(2), states], dim=2)

    def predict(both, level_ids, step_ids):
        given = dataclasses.replace(conditions, signal_level_ids=level_ids, step_size_ids=step_ids)
        z, s = both.split([shape[2] * shape[3], states.shape[2]], dim=2)
        output = model(z.unflatten(2, shape[2:]), **vars(given), states=s)
        return as_one(output.latents, output.states)

    tau, d, flow = tau[..., None], d[..., None], is_flow[..., None]
    clean, noisy = as_one(latents, states), None
    noisy = (1 - tau) * as_one(noise, state_noise) + tau * clean
    model.eval()
    with torch.no_grad():
        first = (predict(noisy, conditions.signal_level_ids, half_ids) - noisy) / (1 - tau)
        halfway = torch.where(flow, noisy, noisy + first * d / 2)
        later = (later_ids / count)[..., None]
        second = (predict(halfway, later_ids, half_ids) - halfway) / (1 - later)
    model.train()
    predicted = predict(noisy, conditions.signal_level_ids, conditions.step_size_ids)
    velocity = (predicted - noisy) / (1 - tau) - (first + second) / 2
    error = torch.where(flow, (predicted - clean) ** 2, (1 - tau) ** 2 * velocity**2)
    weighted = ((0.9 * tau + 0.1) * error).split([shape[2] * shape[3], states.shape[2]], dim=2)
    return weighted[0].mean(), (weighted[1].mean(dim=2) * conditions.state_mask).mean()


def test_the_losses_of_latents_and_states_equal_the_reference_in_value_and_gradient():
    model, rows, frames = tiny_dynamics(**STATE).train(), 6, 4
    levels, steps = sample_training_grid((rows, frames), 16, seeded(), "cpu")
    steps[:2] = 0
    mask = SOME.repeat(3, 1)
    conditions = FrameConditions(levels, steps, randn(rows, frames, 2), None, None, mask)
    latents, states = randn(rows, frames, 3, 5), randn(rows, frames, 3, seed=1)
    noise, state_noise = randn(rows, frames, 3, 5, seed=2), randn(rows, frames, 3, seed=3)
    expected = reference_losses(model, latents, noise, states, state_noise, conditions)
    sum(expected).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    result = shortcut_forcing_loss(model, latents, noise, conditions, states=states, state_noise=state_noise)
    (result.loss + result.state_loss).backward()
    torch.testing.assert_close(result.loss, expected[0], **CLOSE)
    torch.testing.assert_close(result.state_loss, expected[1], **CLOSE)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)
    context = torch.arange(frames).expand(rows, -1) < 2
    part = shortcut_forcing_loss(model, latents, noise, conditions, context, states=states, state_noise=state_noise)
    assert 0 < part.state_loss < result.state_loss


def test_a_predicted_context_has_predicted_states():
    model, length, num_real = tiny_dynamics(**STATE), 4, torch.tensor([2, 4])
    latents, states, actions = randn(2, length, 3, 5), randn(2, length, 3, seed=1), randn(2, length, 2)
    noise, state_noise = randn(2, 2 * length, 3, 5, seed=2), randn(2, 2 * length, 3, seed=3)
    mask = torch.cat([SOME, torch.ones_like(SOME)], dim=1)
    given = {"states": states, "state_mask": mask, "state_noise": state_noise}
    ours = predicted_context(model, latents, actions, None, noise, num_real, context_level_id=15, **given)
    assert torch.equal(ours[0][1], latents[1]) and torch.equal(ours[1][1], states[1])
    assert torch.equal(ours[1][0, :2], states[0, :2])
    level = torch.tensor(15 / 16)
    shown = add_noise(latents[:1, :3], noise[:1, :3], level), add_noise(states[:1, :3], state_noise[:1, :3], level)
    frame = torch.cat([shown[0], noise[:1, 7:8]], dim=1), torch.cat([shown[1], state_noise[:1, 7:8]], dim=1)
    levels = torch.tensor([[15, 15, 15, 0]])
    seen = torch.cat([SOME[:1, :3], torch.ones(1, 1, dtype=torch.bool)], dim=1)
    with torch.no_grad():
        expected = model(frame[0], levels, 0 * levels, actions[:1], states=frame[1], state_mask=seen)
    torch.testing.assert_close(ours[1][0, 3], expected.states[0, 3], **CLOSE)


def test_start_frames_bring_their_states(tmp_path):
    world = state_world()
    pixels = (rand(2, 4, 3, 16, 16) * 255).byte()
    actions, states = randn(2, 4, 2), tiny_states(2, 4)
    starts = StartFrames(pixels, actions, torch.ones(2, 4, dtype=torch.bool), states, SOME)
    starts.check_fits(world.config)
    save_start_frames(tmp_path, starts)
    loaded = load_start_frames(tmp_path)
    assert torch.equal(loaded.states, states) and torch.equal(loaded.state_mask, SOME)
    assert torch.equal(starts[1].states, states[1:]) and torch.equal(starts[1].state_mask, SOME[1:])
    future = randn(2, 3, 2, seed=4)
    ours = world.generate(loaded, future, generator=seeded())
    given = world.generate(pixels, torch.cat([actions, future], 1), generator=seeded(), states=states, state_mask=SOME)
    assert torch.equal(ours.states, given.states)
    without = tiny_world()  # leaves the states out
    without.start_rollout(loaded).step(future[:, 0])
    assert without.start_rollout(loaded).step(future[:, 0]).state is None


def test_states_that_do_not_fit_are_refused_in_one_sentence():
    world, frames = state_world(), rand(1, 4, 3, 16, 16)
    with pytest.raises(ValueError, match=r"states \(shoulder, elbow, grip\) of shape \(1, 4, 3\), got \(1, 4, 2\)"):
        world.start_rollout(frames, states=randn(1, 4, 2))
    with pytest.raises(ValueError, match="expected finite states, got NaN or infinity"):
        world.start_rollout(frames, states=torch.full((1, 4, 3), torch.nan))
    with pytest.raises(ValueError, match="the world has no state"):
        tiny_world().start_rollout(frames, states=tiny_states(1, 4))
    pixels, mask = torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8), torch.ones(1, 4, dtype=torch.bool)
    starts = StartFrames(pixels, torch.zeros(1, 4, 2), mask, torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match=r"states of width 2 but the world has 3 \(shoulder, elbow, grip\)"):
        starts.check_fits(world.config)
    with pytest.raises(ValueError, match="states of start frames hold NaN"):
        StartFrames(pixels, torch.zeros(1, 4, 2), mask, torch.full((1, 4, 2), torch.nan))
    with pytest.raises(ValueError, match="expected no states with StartFrames"):
        world.start_rollout(starts, states=tiny_states(1, 4))
    with pytest.raises(StrictDataclassError, match="state_names has 2 entries: give one for each of state_dim=3"):
        tiny_dynamics(**STATE | {"state_names": ["a", "b"]})


def test_a_saved_world_keeps_its_state(tmp_path):
    world = state_world()
    world.save_pretrained(tmp_path)
    loaded = DreamerWorldModel.from_pretrained(tmp_path)
    frames, states = rand(1, 4, 3, 16, 16), tiny_states(1, 4)
    steps = [each.start_rollout(frames, states=states, generator=seeded()).step(None) for each in (world, loaded)]
    torch.testing.assert_close(steps[0].state, steps[1].state)  # the bits depend on where weights lie in memory
    assert loaded.config.dynamics_config.state_names == STATE["state_names"]
    output = loaded(frames, states=states, state_noise=randn(1, 4, 3))
    assert output.states.shape == (1, 4, 3)

import lpips
import pytest
import torch

from dreamer_hf.configuration_dreamer import DreamerDynamicsConfig
from dreamer_hf.losses import (
    ColorPyramid,
    FrameConditions,
    LossNormalizer,
    RunningRMS,
    is_bootstrap_row,
    predicted_context,
    prepend_context,
    sample_training_row,
    shortcut_forcing_loss,
    tokenizer_loss_terms,
)
from dreamer_hf.modeling_dreamer_dynamics import DreamerDynamicsModel
from dreamer_hf.scheduling_shortcut import add_noise, sample_training_grid

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""For passes whose sums run over different lengths: kernels, and so roundings, differ between processors."""


def make_dynamics(**overrides) -> DreamerDynamicsModel:
    torch.manual_seed(0)
    config = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "num_latent_tokens": 3,
        "latent_dim": 4,
        "num_register_tokens": 1,
        "action_dim": 2,
        "num_signal_levels": 8,
        "context_length": 4,
    }
    model = DreamerDynamicsModel(DreamerDynamicsConfig(**config | overrides))
    with torch.no_grad():  # residual outputs and the head start at zero, and with them every prediction
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_batch(rows: int = 6, frames: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    levels, steps = sample_training_grid((rows, frames), 8, generator, "cpu")
    steps[0], levels[1], steps[1] = 0, 3, 0  # two flow rows
    return {
        "latents": torch.rand(rows, frames, 3, 4, generator=generator) * 2 - 1,
        "actions": torch.randn(rows, frames, 2, generator=generator),
        "action_mask": torch.rand(rows, frames, generator=generator) < 0.7,
        "signal_level_ids": levels,
        "step_size_ids": steps,
        "noise": torch.randn(rows, frames, 3, 4, generator=generator),
    }


def loss_of(model, batch, num_copied_frames=None, **options):
    """Return our loss of a batch of `make_batch`."""
    conditions = {name: value for name, value in batch.items() if name not in ("latents", "noise")}
    conditions = FrameConditions(**conditions, num_copied_frames=num_copied_frames)
    return shortcut_forcing_loss(model, batch["latents"], batch["noise"], conditions, **options)


def reference_grid(model, signal_level_ids, step_size_ids):
    """Return (B,T,1,1) tau, d and whether a frame is a flow frame; (B,T) indices of half the step and of the level
    after it; and (B,T,1,1) tau after half a step."""
    levels = model.config.num_signal_levels
    is_flow = step_size_ids == 0
    half_ids = torch.where(is_flow, 0, step_size_ids - 1)
    later_ids = torch.where(is_flow, signal_level_ids, signal_level_ids + 2**half_ids)
    tau, d, later_tau = signal_level_ids / levels, 2.0**step_size_ids / levels, later_ids / levels
    tau, d, later_tau, is_flow = (values[:, :, None, None] for values in (tau, d, later_tau, is_flow))
    return tau, d, is_flow, half_ids, later_ids, later_tau


def reference_loss(model, latents, actions, action_mask, signal_level_ids, step_size_ids, noise) -> torch.Tensor:
    """The objective as in the paper: three passes over the whole batch, arithmetic in velocities."""
    tau, d, is_flow, half_ids, later_ids, later_tau = reference_grid(model, signal_level_ids, step_size_ids)
    z_tau = (1 - tau) * noise + tau * latents

    def f(z, level_ids, step_ids):
        return model(z, level_ids, step_ids, actions=actions, action_mask=action_mask).latents

    model.eval()
    with torch.no_grad():
        b1 = (f(z_tau, signal_level_ids, half_ids) - z_tau) / (1 - tau)
        z_half = torch.where(is_flow, z_tau, z_tau + b1 * d / 2)
        b2 = (f(z_half, later_ids, half_ids) - z_half) / (1 - later_tau)
    v = (b1 + b2) / 2
    model.train()
    x = f(z_tau, signal_level_ids, step_size_ids)
    flow = (x - latents).square()
    bootstrap = (1 - tau) ** 2 * ((x - z_tau) / (1 - tau) - v).square()
    w = 0.9 * tau + 0.1
    return (w * torch.where(is_flow, flow, bootstrap)).mean()


def test_shortcut_forcing_equals_the_plain_reference_in_value_and_gradient():
    model, batch = make_dynamics(), make_batch()
    expected = reference_loss(model, **batch)
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()))
    result = loss_of(model, batch)
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(torch.autograd.grad(result.loss, list(model.parameters())), expected_gradients):
        # The two sum float32 gradients of order 1e-2 in different orders.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def velocity_reference_loss(model, latents, actions, action_mask, signal_level_ids, step_size_ids, noise):
    """The same in velocities and without the ramp: plain squared errors of the output of the last projection.

    `model` is the model with `prediction="x"`, which returns that output.
    """
    tau, d, is_flow, half_ids, later_ids, _ = reference_grid(model, signal_level_ids, step_size_ids)
    z_tau = (1 - tau) * noise + tau * latents

    def f(z, level_ids, step_ids):
        return model(z, level_ids, step_ids, actions=actions, action_mask=action_mask).latents

    with torch.no_grad():
        b1 = f(z_tau, signal_level_ids, half_ids)
        b2 = f(torch.where(is_flow, z_tau, z_tau + b1 * d / 2), later_ids, half_ids)
    target = torch.where(is_flow, latents - noise, (b1 + b2) / 2)
    return (f(z_tau, signal_level_ids, step_size_ids) - target).square().mean()


def test_velocities_without_ramp_equal_the_plain_reference_in_value_and_gradient():
    model, twin, batch = make_dynamics(prediction="v"), make_dynamics(), make_batch()
    twin.load_state_dict(model.state_dict())
    expected = velocity_reference_loss(twin, **batch)
    expected_gradients = torch.autograd.grad(expected, list(twin.parameters()))
    result = loss_of(model, batch, ramp_weight=False)
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(torch.autograd.grad(result.loss, list(model.parameters())), expected_gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_ramp_can_be_switched_off():
    model, batch = make_dynamics(), make_batch()
    batch["step_size_ids"] = torch.zeros_like(batch["step_size_ids"])
    tau = (batch["signal_level_ids"] / 8)[:, :, None, None]
    conditions = {name: batch[name] for name in ("signal_level_ids", "step_size_ids", "actions", "action_mask")}
    clean = model((1 - tau) * batch["noise"] + tau * batch["latents"], **conditions).latents
    expected = (clean - batch["latents"]).square().mean()
    torch.testing.assert_close(loss_of(model, batch, ramp_weight=False).loss, expected)


def test_parts_of_the_loss_add_up():
    batch = make_batch()
    result = loss_of(make_dynamics(), batch)
    share = (batch["step_size_ids"] == 0).float().mean()
    torch.testing.assert_close(result.loss.detach(), share * result.flow_loss + (1 - share) * result.bootstrap_loss)


def test_bootstrap_passes_run_only_over_the_rows_that_need_them_and_in_eval_mode():
    model, batch = make_dynamics(), make_batch()
    passes = []
    model.register_forward_pre_hook(
        lambda module, inputs: passes.append((len(inputs[0]), module.training, torch.is_grad_enabled()))
    )
    model.train()
    loss_of(model, batch)
    assert passes == [(4, False, False), (4, False, False), (6, True, True)]
    assert model.training
    passes.clear()
    flow_only = batch | {"step_size_ids": torch.zeros_like(batch["step_size_ids"])}
    result = loss_of(model, flow_only)
    assert passes == [(6, True, True)]
    assert result.bootstrap_loss.isnan()
    passes.clear()
    in_step = loss_of(model, flow_only, sync_across_ranks=True)
    assert passes == [(1, False, False), (1, False, False), (6, True, True)]
    assert torch.equal(in_step.loss, result.loss)


def test_flow_loss_of_a_model_that_predicts_zero_is_the_weighted_energy_of_the_latents():
    model, batch = make_dynamics(), make_batch()
    with torch.no_grad():
        model.latent_head.weight.zero_()
    batch["step_size_ids"] = torch.zeros_like(batch["step_size_ids"])
    weight = 0.9 * batch["signal_level_ids"] / 8 + 0.1
    expected = (weight * batch["latents"].square().mean(dim=(2, 3))).mean()
    torch.testing.assert_close(loss_of(model, batch).loss, expected)


def test_bootstrap_rows_are_spread_evenly_and_exactly():
    rows = [is_bootstrap_row(row, 0.25) for row in range(1000)]
    assert sum(rows) == 250
    assert all(sum(rows[start : start + 8]) == 2 for start in range(0, 1000, 8))
    assert not any(is_bootstrap_row(row, 0.0) for row in range(100))
    assert all(is_bootstrap_row(row, 1.0) for row in range(100))


def test_flow_rows_have_the_finest_step_in_every_frame():
    generator = torch.Generator().manual_seed(0)
    levels, steps = sample_training_row(10_000, 8, False, generator, "cpu")
    assert (steps == 0).all()
    assert torch.bincount(levels).tolist() == pytest.approx([1250] * 8, rel=0.15)
    _, steps = sample_training_row(10_000, 8, True, generator, "cpu")
    assert torch.bincount(steps).tolist() == pytest.approx([2500] * 4, rel=0.15)


def test_running_rms_is_the_corrected_average_of_squares():
    rms, losses = RunningRMS(decay=0.9), [2.0, 1.0, 4.0]
    assert rms.value == 1.0
    for loss in losses:
        rms.observe(loss)
    weights = [0.1 * 0.9**2, 0.1 * 0.9, 0.1]
    expected = (sum(w * x**2 for w, x in zip(weights, losses)) / sum(weights)) ** 0.5
    assert rms.value == pytest.approx(expected)


def test_running_rms_continues_from_its_state():
    normalizer = LossNormalizer({"mse": 1.0, "lpips": 0.2})
    for step in range(5):
        normalizer.observe({"mse": 0.1 * step, "lpips": 1.0})
    resumed = LossNormalizer({"mse": 1.0, "lpips": 0.2})
    assert not resumed.has_observed
    resumed.load_state_dict(normalizer.state_dict())
    terms = {"mse": torch.tensor(0.3), "lpips": torch.tensor(0.7)}
    assert resumed.has_observed
    assert torch.equal(resumed.total(terms), normalizer.total(terms))
    normalizer.observe({"mse": 0.5, "lpips": 0.4})
    resumed.observe({"mse": 0.5, "lpips": 0.4})
    assert resumed.state_dict() == normalizer.state_dict()


def test_normalized_terms_keep_their_weights_at_any_scale():
    normalizer = LossNormalizer({"mse": 1.0, "lpips": 0.2})
    for _ in range(3):
        normalizer.observe({"mse": 1e-4, "lpips": 5.0})
    total = normalizer.total({"mse": torch.tensor(1e-4), "lpips": torch.tensor(5.0)})
    assert total.item() == pytest.approx(1.2)
    assert normalizer.total({"mse": torch.tensor(2e-4)}).item() == pytest.approx(2.0)


def test_tokenizer_terms_are_mse_and_lpips_of_every_frame():
    torch.manual_seed(0)
    perceptual = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    frames, reconstruction = torch.rand(2, 2, 3, 64, 64), torch.rand(2, 2, 3, 64, 64)
    terms = tokenizer_loss_terms(reconstruction, frames, perceptual)
    torch.testing.assert_close(terms["mse"], (reconstruction - frames).square().mean())
    each = [
        perceptual(reconstruction[b, t][None] * 2 - 1, frames[b, t][None] * 2 - 1) for b in range(2) for t in range(2)
    ]
    torch.testing.assert_close(terms["lpips"], torch.stack(each).mean())
    assert set(tokenizer_loss_terms(reconstruction, frames)) == {"mse"}


def test_context_frames_have_no_loss():
    model, batch = make_dynamics(), make_batch()
    is_context = torch.zeros_like(batch["step_size_ids"], dtype=torch.bool)
    is_context[:, :2] = True
    parts = [loss_of(model, batch, is_context=which).loss for which in (None, is_context, ~is_context)]
    torch.testing.assert_close(parts[0], parts[1] + parts[2])
    assert 0 < parts[1] < parts[0]


def test_copies_see_the_context_before_them_and_themselves():
    """Computed the slow way: for every frame of every copy, one pass over the context before it and itself."""
    model, copies = make_dynamics().eval(), 3
    batch = {name: value for name, value in make_batch(rows=2, frames=copies * 6).items() if name != "noise"}
    with torch.no_grad():
        together = model(**batch, num_copied_frames=6).latents
        context = model(**{name: value[:, :6] for name, value in batch.items()}).latents
        torch.testing.assert_close(together[:, :6], context, **ROUNDING)
        for frame in range(6, copies * 6):
            seen = [*range(frame % 6), frame]
            alone = model(**{name: value[:, seen] for name, value in batch.items()}).latents[:, -1]
            torch.testing.assert_close(together[:, frame], alone, **ROUNDING)


@pytest.mark.parametrize("num_copied_frames", [0, 4])
def test_a_context_that_does_not_divide_the_frames_is_refused(num_copied_frames):
    batch = {name: value for name, value in make_batch().items() if name != "noise"}
    with pytest.raises(ValueError, match="give 5 frames in equal parts"):
        make_dynamics()(**batch, num_copied_frames=num_copied_frames)


def test_the_context_is_put_before_its_copies_and_has_no_loss():
    levels, steps = torch.arange(4000) % 7, torch.ones(4000, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    moved_levels, moved_steps, has_no_loss = prepend_context(levels, steps, 1000, 7, 0.5, generator, 3)
    assert (moved_levels[:1000] == 7).all() and (moved_steps[:1000] == 0).all() and has_no_loss[:1000].all()
    assert torch.equal(moved_steps[1000:], steps)
    assert has_no_loss[1000:].nonzero()[:, 0].tolist() == [
        copy * 1000 + frame for copy in range(4) for frame in range(3)
    ]
    at_start = moved_levels[1000:] == 0
    assert abs(at_start[levels > 0].float().mean() - 0.5) < 0.03
    assert torch.equal(moved_levels[1000:][~at_start], levels[~at_start])


def test_a_predicted_context_is_what_the_model_predicts_after_the_real_one():
    """Computed the slow way: for every predicted frame, one pass from pure noise after the noisy context."""
    model, length, num_real = make_dynamics(), 5, torch.tensor([3, 5, 0])
    batch = make_batch(rows=3, frames=length)
    latents, actions, mask = (batch[name] for name in ("latents", "actions", "action_mask"))
    noise = torch.randn(3, 2 * length, 3, 4)
    (context,) = predicted_context(model, latents, actions, mask, noise, num_real, context_level_id=7)
    assert model.training and not context.requires_grad
    noisy = add_noise(latents, noise[:, :length], torch.full((3, length), 7 / 8))
    model.eval()
    for row, frame in [(row, frame) for row in range(3) for frame in range(length)]:
        expected = latents[row, frame]
        if frame >= num_real[row]:
            shown = torch.cat([noisy[row, :frame], noise[row, length + frame, None]])[None]
            levels = torch.tensor([[7] * frame + [0]])
            given = {"actions": actions[row, None, : frame + 1], "action_mask": mask[row, None, : frame + 1]}
            with torch.no_grad():
                expected = model(shown, levels, torch.zeros_like(levels), **given).latents[0, -1]
        torch.testing.assert_close(context[row, frame], expected, **ROUNDING)


def test_the_pyramid_error_of_a_small_misplaced_object_shrinks_with_the_distance():
    """The plain squared error of a misplaced dot does not depend on the distance; that of the pyramid does."""
    frames = torch.rand(8, 3, 32, 32)
    pyramid = ColorPyramid(frames)
    target = torch.ones(1, 3, 32, 32)
    target[..., 8:10, 8:10] = 0
    errors, plain = [], []
    for shift in (2, 6, 16):
        image = torch.ones(1, 3, 32, 32)
        image[..., 8:10, 8 + shift : 10 + shift] = 0
        errors.append(pyramid(image, target).item())
        plain.append((image - target).square().mean().item())
    assert plain[0] == plain[1] == plain[2]
    assert errors[0] < errors[1] < errors[2]


def test_the_pyramid_counts_every_scale_of_whitened_colors():
    torch.manual_seed(0)
    frames, images, targets = torch.rand(16, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    pyramid = ColorPyramid(frames)
    colors = frames.transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(pyramid.whitening @ colors), torch.eye(3), atol=1e-4, rtol=1e-4)
    expected = []
    for side in (1, 2, 4):
        whitened = torch.einsum("ij,fjhw->fihw", pyramid.whitening, images - targets)
        blocks = whitened.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean(dim=(3, 5))
        expected.append(side**2 * blocks.square().mean())
    torch.testing.assert_close(pyramid(images, targets), torch.stack(expected).mean())

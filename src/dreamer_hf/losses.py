"""Training objectives: masked autoencoding for the tokenizer, shortcut forcing for the dynamics, loss normalization.

Source: arXiv 2509.24527, sections 3.1 (tokenizer), 3.2 (shortcut forcing) and 3.4 (loss normalization).

Shapes: B batch, T frames, N latent tokens, C latent channels, A action dimension, S state dimension, H, W pixels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from .scheduling_shortcut import add_noise, sample_training_grid

TOKENIZER_LOSS_WEIGHTS = {"mse": 1.0, "lpips": 0.2, "pyramid": 1.0}
DYNAMICS_LOSS_WEIGHTS = {"shortcut": 1.0}


class RunningRMS:
    """Root mean square of a stream of losses.

    An exponential moving average of the squared loss, corrected for its start at zero (as Adam corrects its moments),
    so the first value is the first loss. The state belongs into training checkpoints: a run that resumed without it
    would scale its losses differently.

    Args:
        decay: decay of the moving average. Defaults to 0.99.
    """

    def __init__(self, decay: float = 0.99):
        self.decay = decay
        self.mean_square = 0.0
        self.num_observed = 0

    def observe(self, loss: float) -> None:
        """Update the average with one loss; in distributed training with its mean over all ranks."""
        self.mean_square = self.decay * self.mean_square + (1 - self.decay) * loss**2
        self.num_observed += 1

    @property
    def value(self) -> float:
        """The running RMS: 1 before the first loss, and never zero."""
        if self.num_observed == 0:
            return 1.0
        corrected = self.mean_square / (1 - self.decay**self.num_observed)
        return max(math.sqrt(corrected), 1e-12)

    def state_dict(self) -> dict[str, float]:
        return {"mean_square": self.mean_square, "num_observed": self.num_observed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean_square, self.num_observed = state["mean_square"], state["num_observed"]


class LossNormalizer:
    """Weighted sum of loss terms, each divided by its `RunningRMS` so that the weights keep their meaning.

    Args:
        weights: weight of each term, by name.
        decay: decay of the moving averages. Defaults to 0.99.
    """

    def __init__(self, weights: dict[str, float], decay: float = 0.99):
        self.weights = weights
        self.running = {name: RunningRMS(decay) for name in weights}

    @property
    def has_observed(self) -> bool:
        """Whether the scale of any term is known."""
        return any(rms.num_observed for rms in self.running.values())

    def observe(self, terms: dict[str, float]) -> None:
        """Update the scale of every term with its value (the mean over all ranks)."""
        for name, value in terms.items():
            self.running[name].observe(value)

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the scalar to minimize: `sum(weight * term / RMS of the term)` over the given terms."""
        return sum(self.weights[name] / self.running[name].value * term for name, term in terms.items())

    def state_dict(self) -> dict[str, dict[str, float]]:
        return {name: rms.state_dict() for name, rms in self.running.items()}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: a term is missing, or its scale is not a pair of finite numbers of at least 0.
        """
        for name, rms in self.running.items():
            scale = state.get(name)
            numbers = [scale.get(key) for key in rms.state_dict()] if isinstance(scale, dict) else [None]
            if not all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers):
                raise ValueError(f"no usable scale of the loss term {name}")
            rms.load_state_dict(scale)


class FixedLossScale(LossNormalizer):
    """Weighted sum of unchanged loss terms, for terms that pass through zero or have one scale already."""

    @property
    def has_observed(self) -> bool:
        """True: there is nothing to observe."""
        return True

    def observe(self, terms: dict[str, float]) -> None:
        """Change nothing."""


class ColorPyramid:
    """Squared error in whitened colors at every scale from the pixel up, which notices small objects as LPIPS does.

    A misplaced object of a dozen pixels has the same plain squared error wherever it is, so no gradient moves it to
    its place; at a coarse scale its error shrinks with the distance. Its color, rare in the data, counts more once the
    colors are decorrelated. Each scale counts four times the next finer one, so the error of a small misplaced object
    is the same at all of them. Not in the paper.

    Args:
        frames: (F,3,H,W) float in [0, 1], a sample of the data, whose colors define the whitening.
    """

    COARSEST = 4
    """Smallest side, in pixels, of the coarsest scale."""

    def __init__(self, frames: torch.Tensor):
        colors = frames.double().transpose(0, 1).flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(colors))
        # A direction that never varies is scaled as if it varied by one gray level.
        scales = values.clamp(min=1 / 255**2).rsqrt()
        self.whitening = (scales[:, None] * vectors.T).float()

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over the scales, a scalar, for images and targets (F,3,H,W)."""
        whitening = self.whitening.to(images.device)
        errors = torch.einsum("ij,fjhw->fihw", whitening, images - targets)
        scales = [errors.square().mean()]
        while min(errors.shape[-2:]) >= 2 * self.COARSEST:
            errors = nn.functional.avg_pool2d(errors, 2)
            scales.append(4 ** len(scales) * errors.square().mean())
        return sum(scales) / len(scales)


def tokenizer_loss_terms(
    reconstruction: torch.Tensor,
    pixel_values_videos: torch.Tensor,
    perceptual: Callable[..., torch.Tensor] | None = None,
    pyramid: ColorPyramid | None = None,
) -> dict[str, torch.Tensor]:
    """Compute the terms of the tokenizer loss, over all pixels, masked or not.

    Args:
        reconstruction: (B,T,3,H,W) float on the [0, 1] scale, not clamped.
        pixel_values_videos: (B,T,3,H,W) float in [0, 1].
        perceptual: an `lpips.LPIPS` module; without one (the default) there is no perceptual term.
        pyramid: a `ColorPyramid`; without one (the default) there is no such term.

    Returns:
        Scalars by name: `mse`, and `lpips` and `pyramid` if given. `TOKENIZER_LOSS_WEIGHTS` holds their weights.
    """
    terms = {"mse": nn.functional.mse_loss(reconstruction, pixel_values_videos)}
    images, targets = reconstruction.flatten(0, 1), pixel_values_videos.flatten(0, 1)
    if perceptual is not None:
        terms["lpips"] = perceptual(images, targets, normalize=True).mean()
    if pyramid is not None:
        terms["pyramid"] = pyramid(images, targets)
    return terms


@dataclass
class ShortcutForcingLoss:
    """Result of `shortcut_forcing_loss`.

    Attributes:
        loss: mean over all frames of the batch, a scalar with gradient.
        flow_loss: mean over the frames at the finest step, without gradient, for logging; NaN if there are none.
        bootstrap_loss: likewise over the frames at a coarser step.
        state_loss: mean over all frames of the batch, where those without a state count as 0, a scalar with gradient;
            None for a model without a state.
    """

    loss: torch.Tensor
    flow_loss: torch.Tensor
    bootstrap_loss: torch.Tensor
    state_loss: torch.Tensor | None = None


@dataclass
class FrameConditions:
    """Inputs of a `DreamerDynamicsModel` other than the noisy latents and states; see its `forward`.

    Attributes:
        signal_level_ids: (B,T) int64, index of each frame's signal level.
        step_size_ids: (B,T) int64, index of each frame's step size.
        actions: (B,T,A) float, raw and aligned; None (the default) if no frame has an action.
        action_mask: (B,T) bool, False where a frame has no action; None (the default) if all have one.
        num_copied_frames: number of leading context frames of which the others are copies; None (the default) for an
            ordinary sequence.
        state_mask: (B,T) bool, False where a frame has no state; None (the default) if all have one.
    """

    signal_level_ids: torch.Tensor
    step_size_ids: torch.Tensor
    actions: torch.Tensor | None = None
    action_mask: torch.Tensor | None = None
    num_copied_frames: int | None = None
    state_mask: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> "FrameConditions":
        """Return the conditions of some rows, given by an int64 tensor of indices."""
        parts = {name: part[rows] for name, part in vars(self).items() if isinstance(part, torch.Tensor)}
        return replace(self, **parts)

    def predict(self, model: nn.Module, noisy: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the model's clean prediction of noisy latents (B,T,N,C) and, if given, noisy states (B,T,S)."""
        if len(noisy) == 1:
            return [model(noisy[0], **vars(self)).latents]
        output = model(noisy[0], **vars(self), states=noisy[1])
        return [output.latents, output.states]


def shortcut_forcing_loss(
    model: nn.Module,
    latents: torch.Tensor,
    noise: torch.Tensor,
    conditions: FrameConditions,
    is_context: torch.Tensor | None = None,
    ramp_weight: bool = True,
    sync_across_ranks: bool = False,
    states: torch.Tensor | None = None,
    state_noise: torch.Tensor | None = None,
) -> ShortcutForcingLoss:
    """Compute the shortcut forcing loss (section 3.2): flow matching at the finest step, self-consistency at coarser
    ones.

    With `x` the model's clean prediction for `z_tau`, a frame at the finest step has the loss `|x - z|^2`. A frame at
    a coarser step `d` has the loss `(1 - tau)^2 |(x - z_tau) / (1 - tau) - v|^2`, where `v` is the mean velocity of
    two steps of size `d / 2` that the model itself takes, in eval mode and without gradient. Both are weighted by `0.9
    tau + 0.1`. For a model that predicts velocities the error of the velocity counts, which is `1 / (1 - tau)^2` as
    much, as usual in flow matching. The two extra passes run only over the rows that hold a coarser step; frames at
    the finest step in such a row keep their noise level in both.

    Args:
        model: a `DreamerDynamicsModel`, which may be wrapped for distributed training.
        latents: (B,T,N,C) float, clean latents of the frozen tokenizer.
        noise: (B,T,N,C) float, standard normal.
        conditions: signal levels, step sizes and actions of the batch.
        is_context: (B,T) bool, True for frames that only serve as context and have no loss; None (the default) if all
            have one.
        ramp_weight: whether losses are weighted by `0.9 tau + 0.1`. Defaults to True.
        sync_across_ranks: whether to make the two extra passes even if no row needs them (over one row). Needed if the
            model's parameters are sharded, because every rank takes part in the passes of the others. Defaults to
            False.
        states: (B,T,S) float, clean normalized states, finite also where `conditions.state_mask` is False; None (the
            default) for a model without a state. They have the same loss, over the frames that have a state.
        state_noise: (B,T,S) float, standard normal.
    """
    inner = _without_wrapper(model)
    num_signal_levels = inner.config.num_signal_levels
    levels = (conditions.signal_level_ids / num_signal_levels).to(latents.dtype)
    clean = [latents] if states is None else [latents, states]
    noisy = [add_noise(part, each, levels) for part, each in zip(clean, (noise, state_noise))]
    coarse = conditions.step_size_ids > 0
    rows = _rows_to_run(coarse, sync_across_ranks)
    # A step of the target that leads to x is a clean prediction too: comparing those needs no division by (1 - tau).
    targets = clean
    if len(rows) > 0:
        chosen = [part[rows] for part in noisy]
        bootstrap = _bootstrap_target(inner, chosen, conditions.select(rows), num_signal_levels)
        targets = [part.clone() for part in clean]
        for target, part, predicted in zip(targets, clean, bootstrap):
            is_coarse = _per_frame(coarse[rows], part)
            target[rows] = torch.where(is_coarse.bool(), predicted.to(part.dtype), part[rows])
    weighted = []
    for predicted, target in zip(conditions.predict(model, noisy), targets):
        error = (predicted.float() - target.float()).square().mean(dim=tuple(range(2, target.ndim)))
        if inner.config.prediction == "v":
            error = error / (1 - levels.float()).square()
        weighted.append((0.9 * levels.float() + 0.1) * error if ramp_weight else error)
    counts = torch.ones_like(coarse) if is_context is None else ~is_context
    detached = weighted[0].detach()
    has_state = counts if conditions.state_mask is None else counts & conditions.state_mask
    # Dividing by all frames gives every frame with a loss the same weight, whichever batch it is in.
    return ShortcutForcingLoss(
        (weighted[0] * counts).mean(),
        detached[~coarse & counts].mean(),
        detached[coarse & counts].mean(),
        None if states is None else (weighted[1] * has_state).mean(),
    )


def _without_wrapper(model: nn.Module) -> nn.Module:
    """Return the model for passes that only some ranks make.

    The wrapper of `DistributedDataParallel` broadcasts buffers, in which a rank without such rows would not take part.
    """
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _rows_to_run(frames: torch.Tensor, sync_across_ranks: bool) -> torch.Tensor:
    """Return the indices of the rows of (B,T) bool that hold a True; with `sync_across_ranks` of at least one row."""
    rows = frames.any(dim=1).nonzero()[:, 0]
    return rows.new_zeros(1) if sync_across_ranks and len(rows) == 0 else rows


def _bootstrap_target(
    model: nn.Module, noisy: list[torch.Tensor], conditions: FrameConditions, num_signal_levels: int
) -> list[torch.Tensor]:
    """Return the clean prediction that two half steps of the model amount to: `z_tau + (1 - tau) v`.

    `noisy` and the result are latents (B,T,N,C) and, if the model has a state, states (B,T,S).
    """
    coarse = conditions.step_size_ids > 0
    half_ids = (conditions.step_size_ids - 1).clamp(min=0)
    half_levels = torch.where(coarse, 2**half_ids, 0)  # half a step, in signal levels; 0 at the finest step
    first = replace(conditions, step_size_ids=half_ids)
    second = replace(first, signal_level_ids=conditions.signal_level_ids + half_levels)
    remaining = 1 - first.signal_level_ids / num_signal_levels
    remaining_after_half = 1 - second.signal_level_ids / num_signal_levels
    half_step = half_levels / num_signal_levels

    def velocities(parts: list[torch.Tensor], conditions: FrameConditions, remaining: torch.Tensor):
        predicted = conditions.predict(model, parts)
        return [(clean - part) / _per_frame(remaining, part) for clean, part in zip(predicted, parts)]

    with _inference(model):
        velocity_1 = velocities(noisy, first, remaining)
        halfway = [part + v * _per_frame(half_step, part) for part, v in zip(noisy, velocity_1)]
        velocity_2 = velocities(halfway, second, remaining_after_half)
    return [part + _per_frame(remaining, part) * (v + w) / 2 for part, v, w in zip(noisy, velocity_1, velocity_2)]


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, without gradient."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predicted_context(
    model: nn.Module,
    latents: torch.Tensor,
    actions: torch.Tensor | None,
    action_mask: torch.Tensor | None,
    noise: torch.Tensor,
    num_real_frames: torch.Tensor,
    context_level_id: int,
    sync_across_ranks: bool = False,
    states: torch.Tensor | None = None,
    state_mask: torch.Tensor | None = None,
    state_noise: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Replace the last frames of each window by the model's own predictions, with the errors of a rollout.

    All frames are predicted in one pass, each from pure noise and the real frames before it, in eval mode and without
    gradient.

    Args:
        model: a `DreamerDynamicsModel`, which may be wrapped for distributed training.
        latents: (B,P,N,C) float, clean latents of the frozen tokenizer.
        actions, action_mask: (B,P,A) and (B,P), as in `FrameConditions`.
        noise: (B,2P,N,C) float, standard normal: of the context, then of the frames to predict.
        num_real_frames: (B,) int64, leading frames of each window that stay; P keeps a window unchanged.
        context_level_id: index of the context signal level.
        sync_across_ranks: whether to make the pass even if no window needs it, as in `shortcut_forcing_loss`. Defaults
            to False.

        states: (B,P,S) float, clean normalized states; None (the default) for a model without a state.
        state_mask: (B,2P) bool, False where a frame of the context, then one to predict, has no state.
        state_noise: (B,2P,S) float, standard normal.

    Returns:
        Latents (B,P,N,C) and, if there are `states`, states (B,P,S).
    """
    inner = _without_wrapper(model)
    clean = [latents] if states is None else [latents, states]
    length = latents.shape[1]
    is_predicted = torch.arange(length, device=latents.device) >= num_real_frames[:, None]
    rows = _rows_to_run(is_predicted, sync_across_ranks)
    if len(rows) == 0:
        return clean
    levels = torch.full((len(rows), 2 * length), context_level_id, device=latents.device)
    levels[:, length:] = 0
    twice = [part if part is None else torch.cat([part[rows]] * 2, dim=1) for part in (actions, action_mask)]
    mask = state_mask if state_mask is None else state_mask[rows]
    conditions = FrameConditions(levels, torch.zeros_like(levels), *twice, length, mask)
    signal_levels = (levels / inner.config.num_signal_levels).to(latents.dtype)
    noisy = [
        add_noise(torch.cat([part[rows]] * 2, dim=1), each[rows], signal_levels)
        for part, each in zip(clean, (noise, state_noise))
    ]
    with _inference(inner):
        predicted = conditions.predict(inner, noisy)
    context = [part.clone() for part in clean]
    for part, original, new in zip(context, clean, predicted):
        chosen = _per_frame(is_predicted[rows], original).bool()
        part[rows] = torch.where(chosen, new[:, length:].to(original.dtype), original[rows])
    return context


def _per_frame(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return values (B,T) in the type of a tensor (B,T,...), with which they can then be multiplied."""
    return values.to(like.dtype).reshape(*values.shape, *[1] * (like.ndim - 2))


def sample_training_row(
    num_frames: int,
    num_signal_levels: int,
    is_bootstrap: bool,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `(signal_level_ids, step_size_ids)`, each (T,) int64, for one row of a batch.

    A bootstrap row is the draw of the paper: every frame has its own step size, then its own signal level. A flow row
    has the finest step size in every frame and any signal level: it takes one pass instead of three.
    """
    if is_bootstrap:
        return sample_training_grid((num_frames,), num_signal_levels, generator, device)
    levels = torch.randint(num_signal_levels, (num_frames,), generator=generator, device=device)
    return levels, torch.zeros_like(levels)


def prepend_context(
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    num_copied_frames: int,
    context_level_id: int,
    pure_noise_fraction: float,
    generator: torch.Generator | None,
    num_first_frames: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the noisy context of a rollout in front of a row whose frames are copies of it.

    In the paper's row a frame is denoised and is context of others at once, so its own context is as noisy as the draw
    happens to be. With a context that takes one pass over its own frames, every frame learns what a rollout asks of
    it.

    Args:
        signal_level_ids, step_size_ids: (copies * P,) int64, from `sample_training_row`.
        num_copied_frames: P.
        context_level_id: index of the context signal level.
        pure_noise_fraction: probability that a frame starts from pure noise whatever its draw: only the context and
            the action then say what it shows.
        generator: source of the draws.
        num_first_frames: number of leading frames of every copy without a loss, because a rollout starts from context
            frames. Defaults to 0.

    Returns:
        Levels and step sizes, (P + copies * P,) int64, and which frames have no loss, likewise, bool.
    """
    coins = torch.rand(signal_level_ids.shape, generator=generator, device=signal_level_ids.device)
    levels = signal_level_ids.masked_fill(coins < pure_noise_fraction, 0)
    is_first = (torch.arange(len(levels), device=levels.device) % num_copied_frames) < num_first_frames
    context = levels.new_full((num_copied_frames,), context_level_id)
    return (
        torch.cat([context, levels]),
        torch.cat([torch.zeros_like(context), step_size_ids]),
        torch.cat([torch.ones_like(context, dtype=torch.bool), is_first]),
    )


def is_bootstrap_row(row_id: int, bootstrap_fraction: float) -> bool:
    """Return whether the row with this running number is a bootstrap row.

    Such rows are spread evenly: every batch of every rank holds its share, which is exact over the whole run and does
    not depend on how rows are divided among processes.
    """
    return math.floor((row_id + 1) * bootstrap_fraction) > math.floor(row_id * bootstrap_fraction)

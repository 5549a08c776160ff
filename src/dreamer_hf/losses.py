"""The objectives: masked autoencoding for the tokenizer, shortcut forcing for the dynamics, running-RMS normalization.

Source: arXiv 2509.24527, sections 3.1 (tokenizer), 3.2 (shortcut forcing) and 3.4 (loss normalization).

Shapes: B batch, T frames, N latent tokens, C latent channels, A action dimension, H, W pixels.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from .scheduling_shortcut import add_noise, sample_training_grid

TOKENIZER_LOSS_WEIGHTS = {"mse": 1.0, "lpips": 0.2, "pyramid": 1.0}
DYNAMICS_LOSS_WEIGHTS = {"shortcut": 1.0}


class RunningRMS:
    """Root mean square of a stream of losses: an exponential moving average of the squared loss, corrected for its
    start at zero (as Adam corrects its moments), so that the first value is the first loss itself.

    Its state belongs to a training checkpoint: a run that resumes without it would scale its losses anew.
    """

    def __init__(self, decay: float = 0.99):
        self.decay = decay
        self.mean_square = 0.0
        self.num_observed = 0

    def observe(self, loss: float) -> None:
        """Takes one loss in. In distributed training give the mean over all ranks, so that they stay equal."""
        self.mean_square = self.decay * self.mean_square + (1 - self.decay) * loss**2
        self.num_observed += 1

    @property
    def value(self) -> float:
        """The running RMS; 1 before the first loss, and never zero."""
        if self.num_observed == 0:
            return 1.0
        corrected = self.mean_square / (1 - self.decay**self.num_observed)
        return max(math.sqrt(corrected), 1e-12)

    def state_dict(self) -> dict[str, float]:
        return {"mean_square": self.mean_square, "num_observed": self.num_observed}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean_square, self.num_observed = state["mean_square"], state["num_observed"]


class LossNormalizer:
    """Weighted sum of loss terms, each divided by its own `RunningRMS`, so that the weights keep their meaning."""

    def __init__(self, weights: dict[str, float], decay: float = 0.99):
        self.weights = weights
        self.running = {name: RunningRMS(decay) for name in weights}

    @property
    def has_observed(self) -> bool:
        """Whether the scale of any term is known."""
        return any(rms.num_observed for rms in self.running.values())

    def observe(self, terms: dict[str, float]) -> None:
        """Takes in the value of every term (means over all ranks)."""
        for name, value in terms.items():
            self.running[name].observe(value)

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The scalar to minimize: `sum(weight * term / RMS of the term)` over the terms that are present."""
        return sum(self.weights[name] / self.running[name].value * term for name, term in terms.items())

    def state_dict(self) -> dict[str, dict[str, float]]:
        return {name: rms.state_dict() for name, rms in self.running.items()}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        for name, rms in self.running.items():
            rms.load_state_dict(state[name])


class ColorPyramid:
    """Squared error in whitened colors on every scale from the pixel up: where LPIPS is not at hand, the measure that
    sees small things.

    A thing of a dozen pixels that is reconstructed in the wrong place costs plain squared error the same wherever that
    is, so nothing leads it home; on a coarse scale its error shrinks with the distance. And its color, rare in the data,
    weighs more once the colors are decorrelated. Each scale counts four times the finer one, which keeps the cost of a
    small misplaced thing the same on all of them.

    Args:
        frames: (F,3,H,W) float in [0, 1], a sample of the data: says which colors vary, and together how.
    """

    COARSEST = 4
    """Side in pixels of the coarsest scale, at least."""

    def __init__(self, frames: torch.Tensor):
        colors = frames.double().transpose(0, 1).flatten(1)
        values, vectors = torch.linalg.eigh(torch.cov(colors))
        # A direction that never varies has nothing to be scaled by; one gray level is the finest there is.
        scales = values.clamp(min=1 / 255**2).rsqrt()
        self.whitening = (scales[:, None] * vectors.T).float()

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(F,3,H,W) twice -> the mean over the scales, a scalar."""
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
    """Terms of the tokenizer loss, over all pixels, masked or not.

    Args:
        reconstruction: (B,T,3,H,W) float on the [0, 1] scale, not clamped.
        pixel_values_videos: (B,T,3,H,W) float in [0, 1].
        perceptual: an `lpips.LPIPS` module, or None to leave the perceptual term out.
        pyramid: a `ColorPyramid`, or None to leave that term out; it is not in the paper.

    Returns:
        Scalars by name: `mse`, and `lpips` and `pyramid` where they are given. Their weights are
        `TOKENIZER_LOSS_WEIGHTS`.
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
    """`loss` is the mean over all frames of the batch; the other two are its parts over the frames that they concern
    (NaN when there is none), without gradient, for logging."""

    loss: torch.Tensor
    flow_loss: torch.Tensor
    bootstrap_loss: torch.Tensor


def shortcut_forcing_loss(
    model: nn.Module,
    latents: torch.Tensor,
    actions: torch.Tensor | None,
    action_mask: torch.Tensor | None,
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    noise: torch.Tensor,
    in_step_with_others: bool = False,
    ramp_weight: bool = True,
    is_past: torch.Tensor | None = None,
    past_length: int | None = None,
) -> ShortcutForcingLoss:
    """Shortcut forcing (section 3.2): flow matching at the finest step, self-consistency at every coarser one.

    With `x` the model's clean prediction for `z_tau`, a frame at the finest step costs `|x - z|^2`; a frame at a
    coarser step `d` costs `(1 - tau)^2 |(x - z_tau) / (1 - tau) - v|^2`, where `v` is the mean velocity of two steps
    of size `d / 2` that the model itself takes, in eval mode and without gradient. Both are weighted by
    `0.9 tau + 0.1`. Of a model that predicts velocities it is the velocity whose error counts, `1 / (1 - tau)^2` as much,
    as usual in flow matching. The two extra passes run only over the rows that hold a coarser step; frames at the finest step
    in such a row keep their noise level in both.

    Args:
        model: a `DreamerDynamicsModel`, wrapped for distributed training or not.
        latents: (B,T,N,C) clean latents of the frozen tokenizer.
        actions: (B,T,A) raw and aligned, or None.
        action_mask: (B,T) bool, False where a frame has no action, or None.
        signal_level_ids: (B,T) int64, as `scheduling_shortcut` counts them.
        step_size_ids: (B,T) int64, likewise.
        noise: (B,T,N,C) standard normal.
        in_step_with_others: make the two extra passes even if no row needs them (over one row), because the model's
            parameters are sharded and the other processes' passes wait for this one's part.
        ramp_weight: False leaves the weight `0.9 tau + 0.1` out.
        is_past: (B,T) bool, True for frames that are only shown to those after them and cost nothing themselves; or
            None.
        past_length: as in `DreamerDynamicsModel.forward`; or None.
    """
    inner = _without_wrapper(model)
    num_signal_levels = inner.config.num_signal_levels
    conditions = _Conditions(signal_level_ids, step_size_ids, actions, action_mask, past_length)
    levels = (signal_level_ids / num_signal_levels).to(latents.dtype)
    noisy = add_noise(latents, noise, levels)
    coarse = step_size_ids > 0
    rows = _rows_to_run(coarse, in_step_with_others)
    # A step of the target that leads to x is a clean prediction too: comparing those needs no division by (1 - tau).
    target = latents
    if len(rows) > 0:
        bootstrap = _bootstrap_target(inner, noisy[rows], conditions.rows(rows), num_signal_levels)
        target = latents.clone()
        target[rows] = torch.where(coarse[rows, :, None, None], bootstrap.to(latents.dtype), latents[rows])
    prediction = conditions.run(model, noisy)
    error = (prediction.float() - target.float()).square().mean(dim=(2, 3))
    if inner.config.prediction == "v":
        error = error / (1 - levels.float()).square()
    weighted = (0.9 * levels.float() + 0.1) * error if ramp_weight else error
    counts = torch.ones_like(coarse) if is_past is None else ~is_past
    detached = weighted.detach()
    # Divided by all frames, so that every frame that counts weighs the same whichever batch it is in.
    return ShortcutForcingLoss(
        (weighted * counts).mean(), detached[~coarse & counts].mean(), detached[coarse & counts].mean()
    )


def _without_wrapper(model: nn.Module) -> nn.Module:
    """The model for passes that some processes make and others do not: DDP's wrapper broadcasts buffers, and a process
    without such rows would not take part."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _rows_to_run(frames: torch.Tensor, in_step_with_others: bool) -> torch.Tensor:
    """Indices of the rows of (B,T) bool that hold a True; of one row where there is none and others wait for a pass."""
    rows = frames.any(dim=1).nonzero()[:, 0]
    return rows.new_zeros(1) if in_step_with_others and len(rows) == 0 else rows


@dataclass
class _Conditions:
    """What the dynamics model sees beside the noisy latents."""

    signal_level_ids: torch.Tensor
    step_size_ids: torch.Tensor
    actions: torch.Tensor | None
    action_mask: torch.Tensor | None
    past_length: int | None

    def rows(self, index: torch.Tensor) -> "_Conditions":
        parts = (self.signal_level_ids, self.step_size_ids, self.actions, self.action_mask)
        return _Conditions(*(part if part is None else part[index] for part in parts), self.past_length)

    def run(self, model: nn.Module, noisy: torch.Tensor) -> torch.Tensor:
        output = model(
            noisy,
            self.signal_level_ids,
            self.step_size_ids,
            actions=self.actions,
            action_mask=self.action_mask,
            past_length=self.past_length,
        )
        return output.latents


def _bootstrap_target(
    model: nn.Module, noisy: torch.Tensor, conditions: _Conditions, num_signal_levels: int
) -> torch.Tensor:
    """The clean prediction that two half steps of the model itself amount to: `z_tau + (1 - tau) v`."""
    coarse = conditions.step_size_ids > 0
    half_ids = (conditions.step_size_ids - 1).clamp(min=0)
    half_levels = torch.where(coarse, 2**half_ids, 0)  # half a step, counted in signal levels; none at the finest step
    first = replace(conditions, step_size_ids=half_ids)
    second = replace(first, signal_level_ids=conditions.signal_level_ids + half_levels)
    remaining = _per_frame(1 - first.signal_level_ids / num_signal_levels, noisy)
    remaining_after_half = _per_frame(1 - second.signal_level_ids / num_signal_levels, noisy)
    half_step = _per_frame(half_levels / num_signal_levels, noisy)
    with _as_in_use(model):
        velocity_1 = (first.run(model, noisy) - noisy) / remaining
        halfway = noisy + velocity_1 * half_step
        velocity_2 = (second.run(model, halfway) - halfway) / remaining_after_half
    return noisy + remaining * (velocity_1 + velocity_2) / 2


@contextmanager
def _as_in_use(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and without gradient."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predicted_past(
    model: nn.Module,
    latents: torch.Tensor,
    actions: torch.Tensor | None,
    action_mask: torch.Tensor | None,
    noise: torch.Tensor,
    num_real_frames: torch.Tensor,
    context_level_id: int,
    in_step_with_others: bool = False,
) -> torch.Tensor:
    """A window's past with the errors that it has in a rollout: after some real frames, the model's own predictions.

    All frames are predicted at once, each in one pass from pure noise beside the real past before it, in eval mode and
    without gradient.

    Args:
        model: a `DreamerDynamicsModel`, wrapped for distributed training or not.
        latents: (B,P,N,C) clean latents of the frozen tokenizer.
        actions, action_mask: (B,P,A) and (B,P), as in `shortcut_forcing_loss`.
        noise: (B,2P,N,C) standard normal: of the past that is shown, and what the frames start from.
        num_real_frames: (B,) int64; P leaves a window as it is.
        context_level_id: index of the context signal level.
        in_step_with_others: make the pass even if no window needs it, as in `shortcut_forcing_loss`.

    Returns:
        (B,P,N,C).
    """
    inner = _without_wrapper(model)
    length = latents.shape[1]
    is_own = torch.arange(length, device=latents.device) >= num_real_frames[:, None]
    rows = _rows_to_run(is_own, in_step_with_others)
    if len(rows) == 0:
        return latents
    levels = torch.full((len(rows), 2 * length), context_level_id, device=latents.device)
    levels[:, length:] = 0
    twice = [part if part is None else torch.cat([part[rows]] * 2, dim=1) for part in (actions, action_mask)]
    conditions = _Conditions(levels, torch.zeros_like(levels), *twice, length)
    signal_levels = (levels / inner.config.num_signal_levels).to(latents.dtype)
    shown = add_noise(torch.cat([latents[rows]] * 2, dim=1), noise[rows], signal_levels)
    with _as_in_use(inner):
        predicted = conditions.run(inner, shown)[:, length:].to(latents.dtype)
    past = latents.clone()
    past[rows] = torch.where(is_own[rows, :, None, None], predicted, latents[rows])
    return past


def _per_frame(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.dtype)[..., None, None]


def sample_training_row(
    num_frames: int,
    num_signal_levels: int,
    is_bootstrap: bool,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws `(signal_level_ids, step_size_ids)`, each (T,) int64, for one row of a batch.

    A bootstrap row is the specified draw: every frame its own step size, then its own signal level. A flow row has
    the finest step size in every frame and any signal level: it costs one pass instead of three.
    """
    if is_bootstrap:
        return sample_training_grid((num_frames,), num_signal_levels, generator, device)
    levels = torch.randint(num_signal_levels, (num_frames,), generator=generator, device=device)
    return levels, torch.zeros_like(levels)


def show_past_as_in_rollouts(
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    fraction: float,
    context_level_id: int,
    generator: torch.Generator | None,
    num_first_frames: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moves a share of a row's frames to the level and step size at which rollouts show the past.

    The paper draws every frame's level alike, so that most of a frame's past is noise and what an action does is hard to
    see. With a share of clean enough frames small models find it in minutes. 0 is the paper's draw.

    Args:
        signal_level_ids, step_size_ids: (T,) int64, from `sample_training_row`.
        fraction: probability that a frame is moved.
        context_level_id: index of the context signal level.
        num_first_frames: the row's first frames are moved in any case, as a rollout is given some.

    Returns:
        Levels and step sizes (T,) int64, and which frames were moved, (T,) bool.
    """
    coins = torch.rand(signal_level_ids.shape, generator=generator, device=signal_level_ids.device)
    moved = coins < fraction
    moved[:num_first_frames] = True
    return signal_level_ids.masked_fill(moved, context_level_id), step_size_ids.masked_fill(moved, 0), moved


def put_beside_past(
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    num_past_frames: int,
    context_level_id: int,
    pure_noise_fraction: float,
    generator: torch.Generator | None,
    num_first_frames: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Puts the past of a rollout before a row's frames, which are copies of it (`past_length` of the model).

    In the paper's row a frame is denoised and past to others at once, so that its own past is as noisy as it happens to
    be. Beside a past that costs one pass of its own every frame learns what rollouts ask of it.

    Args:
        signal_level_ids, step_size_ids: (copies * P,) int64, from `sample_training_row`.
        num_past_frames: P.
        context_level_id: index of the context signal level.
        pure_noise_fraction: probability that a frame starts from pure noise whatever was drawn: there alone nothing
            but the past and the action says what will be.
        num_first_frames: the first frames of a copy cost nothing, as a rollout is given some.

    Returns:
        Levels and step sizes, (P + copies * P,) int64, and which frames cost nothing, likewise, bool.
    """
    coins = torch.rand(signal_level_ids.shape, generator=generator, device=signal_level_ids.device)
    levels = signal_level_ids.masked_fill(coins < pure_noise_fraction, 0)
    is_free = (torch.arange(len(levels), device=levels.device) % num_past_frames) < num_first_frames
    past = levels.new_full((num_past_frames,), context_level_id)
    return (
        torch.cat([past, levels]),
        torch.cat([torch.zeros_like(past), step_size_ids]),
        torch.cat([torch.ones_like(past, dtype=torch.bool), is_free]),
    )


def is_bootstrap_row(row_id: int, bootstrap_fraction: float) -> bool:
    """Whether the row with this running number is a bootstrap row: evenly spread, so that every batch of every rank
    holds its share, exact over the whole run, and independent of how rows are divided over processes."""
    return math.floor((row_id + 1) * bootstrap_fraction) > math.floor(row_id * bootstrap_fraction)

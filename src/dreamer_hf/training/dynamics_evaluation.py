"""How good a dynamics model is on held-out windows, cheaply enough for evaluations during training.

Shapes: B windows, T frames, N latent tokens, C latent channels, A action dimensions, S state
dimensions, H, W pixels.
"""

import numpy as np
import torch
from torch import nn

from ..camera_views import decode_cameras, encode_cameras, split_frames, tile_cameras
from ..evaluation.measurements import state_distances
from ..evaluation.open_loop import DREAM, REPEAT, Clips, dream_clips
from ..evaluation.videos import image_grid, side_by_side
from ..frame_inputs import to_unit_range
from ..image_metrics import VideoQuality
from ..losses import FrameConditions, sample_training_row, shortcut_forcing_loss
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..state_space import StateSpace
from .batches import batch_states

VECTORS = ("actions", "action_mask", "states", "state_mask")
MAX_HORIZON = 8


class DynamicsEvaluation:
    """Compares dreams with the real frames, over the batches that are added.

    The first frames of every window are the context. The last `MAX_HORIZON` (half the window, if that is less) are
    dreamed, once with their own actions and once with those of another window. The noise comes from the generator
    given with a batch: pass equal ones in every evaluation.

    Args:
        dynamics, tokenizer: the models, in eval mode.
        perceptual: an `lpips.LPIPS`, or None.
    """

    def __init__(
        self, dynamics: DreamerDynamicsModel, tokenizer: DreamerTokenizerModel, perceptual: nn.Module | None = None
    ):
        self.dynamics, self.tokenizer = dynamics, tokenizer
        self.flow, self.windows = 0.0, 0
        self.dreamed, self.misled, self.repeated = (VideoQuality(perceptual) for _ in range(3))
        self.state_space = StateSpace.from_config(dynamics.config)
        self.state_errors: list[dict[str, np.ndarray]] = []
        self.image: np.ndarray | None = None
        self.video: list[np.ndarray] = []

    @torch.no_grad()
    def add(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        """Add a batch of windows.

        Args:
            batch: uint8 `pixel_values_videos` (B,T,3,H,W), or `latents` (B,T,N,C), which are decoded for the
                comparison; `actions` (B,T,A) and `action_mask` (B,T); perhaps `states` (B,T,S) and `state_mask` (B,T).
            generator: draws the noise.
        """
        if "latents" in batch:
            latents = batch["latents"].float()
            pixels = decode_cameras(self.tokenizer, latents)
        else:
            pixels = to_unit_range(batch["pixel_values_videos"])
            latents = encode_cameras(self.tokenizer, pixels).latents
        self._add_flow(latents, batch, generator)
        horizon = min(MAX_HORIZON, pixels.shape[1] // 2)
        real, last = pixels[:, -horizon:], pixels[:, -horizon - 1 : -horizon]
        described = {name: batch[name] for name in VECTORS if name in batch}
        clips = Clips(latents, num_context_frames=pixels.shape[1] - horizon, **described)
        # The same noise twice: only the actions differ.
        dreamed, states = self._dream(clips, generator.clone_state())
        misled, _ = self._dream(clips.with_other_actions(), generator)
        if states is not None and clips.states is not None:
            self.state_errors.append(state_distances({DREAM: states}, clips, self.state_space)["state_error"])
        for quality, frames in ((self.dreamed, dreamed), (self.misled, misled), (self.repeated, last.expand_as(real))):
            quality.add(split_frames(frames), split_frames(real))
        if self.image is None:
            columns = {"real": real, "dream": dreamed, "other actions": misled}
            columns = {title: tile_cameras(frames) for title, frames in columns.items()}
            self._show(tile_cameras(pixels[:, :-horizon]), columns)

    def _show(self, context: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Make image and video of the first two windows, from the context (B,T,3,H,W) and what follows, by title."""
        shown = range(min(2, len(context)))
        self.image = image_grid([frames[window] for window in shown for frames in columns.values()])
        for window in shown:
            videos = {title: torch.cat([context[window], frames[window]]) for title, frames in columns.items()}
            self.video += side_by_side(videos, context.shape[1], height=192)

    def _add_flow(self, latents: torch.Tensor, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        levels, frames = self.dynamics.config.num_signal_levels, latents.shape[1]
        rows = [sample_training_row(frames, levels, False, generator, latents.device) for _ in latents]
        grid = [torch.stack(column) for column in zip(*rows)]
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        conditions, given = FrameConditions(*grid, batch["actions"], batch["action_mask"]), {}
        if self.dynamics.config.state_dim:
            states, conditions.state_mask = batch_states(self.dynamics, batch)
            noise_of_states = torch.randn(states.shape, generator=generator, device=states.device)
            given = {"states": states, "state_noise": noise_of_states}
        loss = shortcut_forcing_loss(self.dynamics, latents, noise, conditions, **given)
        self.flow += loss.loss.item() * len(latents)
        self.windows += len(latents)

    def _dream(self, clips: Clips, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the dreamed frames of each window (B,horizon,3,H,W), and perhaps their states (B,horizon,S)."""
        context, dreamed = clips.latents[:, : clips.num_context_frames], dream_clips(self.dynamics, clips, generator)
        latents = torch.cat([context.float(), dreamed.latents], dim=1)
        return decode_cameras(self.tokenizer, latents)[:, clips.num_context_frames :], dreamed.states

    def values(self) -> dict[str, float]:
        """Return the metrics: the flow loss, the quality of the first and the last dreamed frame, the PSNR of
        repeating the last real frame instead, and the ratio of the error with another window's actions to that with
        the real ones; of a state, the error in percent of the range, and that of repeating the last real state."""
        values = {"eval_flow_loss": self.flow / self.windows}
        horizon = self.dreamed.scores()["mse"].shape[1]
        for step in sorted({1, horizon}):
            values |= {f"eval_{name}_{step}": value for name, value in self.dreamed.values(step - 1).items()}
            values[f"eval_repeat_psnr_{step}"] = self.repeated.values(step - 1)["psnr"]
            for candidate, name in ((DREAM, "eval_state_error"), (REPEAT, "eval_repeat_state_error")):
                errors = [batch[candidate][:, step - 1] for batch in self.state_errors]
                if errors and np.isfinite(np.concatenate(errors)).any():
                    values[f"{name}_{step}"] = float(np.nanmean(np.concatenate(errors)))
        values["eval_action_shuffle_ratio"] = self.misled.mse() / self.dreamed.mse()
        return values

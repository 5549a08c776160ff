"""How good a dynamics model is on held-out windows: cheap enough to be looked at during training.

Shapes: B windows, T frames, N latent tokens, C latent channels, A action dimensions, H, W pixels.
"""

import numpy as np
import torch
from torch import nn

from ..evaluation.open_loop import Clips, dream_clips
from ..evaluation.videos import image_grid, side_by_side
from ..frame_inputs import to_unit_range
from ..image_metrics import VideoQuality
from ..losses import FrameConditions, sample_training_row, shortcut_forcing_loss
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel

MAX_HORIZON = 8


class DynamicsEvaluation:
    """Compares, over the batches that are added, dreams with what really followed.

    Every window is cut in two: the first frames are the context, the last `MAX_HORIZON` (half the window, if that is
    less) are dreamt, once with their own actions and once with those of another window. The noise comes from the
    generator given with a batch: give the same ones in every evaluation.

    Args:
        dynamics, tokenizer: the models, in eval mode.
        perceptual: an `lpips.LPIPS`, or None.
    """

    def __init__(
        self, dynamics: DreamerDynamicsModel, tokenizer: DreamerTokenizerModel, perceptual: nn.Module | None = None
    ):
        self.dynamics, self.tokenizer = dynamics, tokenizer
        self.flow, self.windows = 0.0, 0
        self.dreamt, self.misled, self.repeated = (VideoQuality(perceptual) for _ in range(3))
        self.picture: np.ndarray | None = None
        self.film: list[np.ndarray] = []

    @torch.no_grad()
    def add(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        """Adds a batch of windows: uint8 `pixel_values_videos` (B,T,3,H,W) or `latents` (B,T,N,C), which are then decoded
        to have something to compare with; `actions` (B,T,A) and `action_mask` (B,T)."""
        if "latents" in batch:
            latents = batch["latents"].float()
            pixels = self.tokenizer.decode(latents).pixel_values_videos
        else:
            pixels = to_unit_range(batch["pixel_values_videos"])
            latents = self.tokenizer.encode(pixels).latents
        self._add_flow(latents, batch, generator)
        horizon = min(MAX_HORIZON, pixels.shape[1] // 2)
        real, last = pixels[:, -horizon:], pixels[:, -horizon - 1 : -horizon]
        clips = Clips(latents, batch["actions"], batch["action_mask"], num_context_frames=pixels.shape[1] - horizon)
        # The same noise twice: only the actions differ.
        dreamt = self._dream(clips, generator.clone_state())
        misled = self._dream(clips.with_other_actions(), generator)
        self.dreamt.add(dreamt, real)
        self.misled.add(misled, real)
        self.repeated.add(last.expand_as(real), real)
        if self.picture is None:
            self._show(pixels[:, :-horizon], {"real": real, "dream": dreamt, "other actions": misled})

    def _show(self, given: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Makes picture and film of the first two windows: given frames (B,T,3,H,W) and what follows, by titles."""
        shown = range(min(2, len(given)))
        self.picture = image_grid([frames[window] for window in shown for frames in columns.values()])
        for window in shown:
            films = {title: torch.cat([given[window], frames[window]]) for title, frames in columns.items()}
            self.film += side_by_side(films, given.shape[1], height=192)

    def _add_flow(self, latents: torch.Tensor, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        levels, frames = self.dynamics.config.num_signal_levels, latents.shape[1]
        rows = [sample_training_row(frames, levels, False, generator, latents.device) for _ in latents]
        grid = [torch.stack(column) for column in zip(*rows)]
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        conditions = FrameConditions(*grid, batch["actions"], batch["action_mask"])
        loss = shortcut_forcing_loss(self.dynamics, latents, noise, conditions)
        self.flow += loss.loss.item() * len(latents)
        self.windows += len(latents)

    def _dream(self, clips: Clips, generator: torch.Generator) -> torch.Tensor:
        """The dreamt frames of each window: (B,horizon,3,H,W)."""
        given = clips.latents[:, : clips.num_context_frames]
        latents = torch.cat([given.float(), dream_clips(self.dynamics, clips, generator)], dim=1)
        return self.tokenizer.decode(latents).pixel_values_videos[:, clips.num_context_frames :]

    def values(self) -> dict[str, float]:
        """Flow loss; quality of the first and the last dreamt frame, beside the PSNR of repeating the last real one;
        and how many times larger the dream's error is with the actions of another window."""
        values = {"eval_flow_loss": self.flow / self.windows}
        horizon = self.dreamt.scores()["mse"].shape[1]
        for step in sorted({1, horizon}):
            values |= {f"eval_{name}_{step}": value for name, value in self.dreamt.values(step - 1).items()}
            values[f"eval_repeat_psnr_{step}"] = self.repeated.values(step - 1)["psnr"]
        values["eval_action_shuffle_ratio"] = self.misled.mse() / self.dreamt.mse()
        return values

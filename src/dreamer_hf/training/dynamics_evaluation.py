"""How good a dynamics model is on held-out windows, cheaply enough for evaluations during training.

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
        self.image: np.ndarray | None = None
        self.video: list[np.ndarray] = []

    @torch.no_grad()
    def add(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        """Add a batch of windows.

        Args:
            batch: uint8 `pixel_values_videos` (B,T,3,H,W), or `latents` (B,T,N,C), which are decoded for the
                comparison; `actions` (B,T,A) and `action_mask` (B,T).
            generator: draws the noise.
        """
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
        dreamed = self._dream(clips, generator.clone_state())
        misled = self._dream(clips.with_other_actions(), generator)
        self.dreamed.add(dreamed, real)
        self.misled.add(misled, real)
        self.repeated.add(last.expand_as(real), real)
        if self.image is None:
            self._show(pixels[:, :-horizon], {"real": real, "dream": dreamed, "other actions": misled})

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
        conditions = FrameConditions(*grid, batch["actions"], batch["action_mask"])
        loss = shortcut_forcing_loss(self.dynamics, latents, noise, conditions)
        self.flow += loss.loss.item() * len(latents)
        self.windows += len(latents)

    def _dream(self, clips: Clips, generator: torch.Generator) -> torch.Tensor:
        """Return the dreamed frames of each window: (B,horizon,3,H,W)."""
        context = clips.latents[:, : clips.num_context_frames]
        latents = torch.cat([context.float(), dream_clips(self.dynamics, clips, generator)], dim=1)
        return self.tokenizer.decode(latents).pixel_values_videos[:, clips.num_context_frames :]

    def values(self) -> dict[str, float]:
        """Return the metrics: the flow loss, the quality of the first and the last dreamed frame, the PSNR of
        repeating the last real frame instead, and the ratio of the error with another window's actions to that with
        the real ones."""
        values = {"eval_flow_loss": self.flow / self.windows}
        horizon = self.dreamed.scores()["mse"].shape[1]
        for step in sorted({1, horizon}):
            values |= {f"eval_{name}_{step}": value for name, value in self.dreamed.values(step - 1).items()}
            values[f"eval_repeat_psnr_{step}"] = self.repeated.values(step - 1)["psnr"]
        values["eval_action_shuffle_ratio"] = self.misled.mse() / self.dreamed.mse()
        return values

"""How good a dynamics model is on held-out windows: cheap enough to be looked at during training.

Shapes: B windows, T frames, N latent tokens, C latent channels, A action dimensions, H, W pixels.
"""

from dataclasses import dataclass

import torch

from ..losses import sample_training_row, shortcut_forcing_loss
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from .data import as_pixels
from .metrics import psnr

MAX_HORIZON = 4


@dataclass
class DynamicsEvaluation:
    """Sums over the batches that were added; `values` turns them into what is logged.

    The noise of a batch comes from the generator that it is added with: give the same ones in every evaluation.
    """

    flow: float = 0.0
    flow_with_other_actions: float = 0.0
    windows: int = 0
    dream_error: torch.Tensor | float = 0.0
    repeat_error: torch.Tensor | float = 0.0

    def add(
        self,
        dynamics: DreamerDynamicsModel,
        tokenizer: DreamerTokenizerModel,
        batch: dict[str, torch.Tensor],
        generator: torch.Generator,
    ) -> None:
        """Adds a batch of windows: uint8 `pixel_values_videos` (B,T,3,H,W), `actions` (B,T,A), `action_mask` (B,T)."""
        pixels = as_pixels(batch["pixel_values_videos"])
        latents = tokenizer.encode(pixels).latents
        self.windows += len(pixels)
        self._add_flow(dynamics, latents, batch, generator)
        self._add_dream(dynamics, tokenizer, pixels, latents, batch, generator)

    def _add_flow(self, dynamics, latents, batch, generator) -> None:
        levels = dynamics.config.num_signal_levels
        grid = [sample_training_row(latents.shape[1], levels, False, generator, latents.device) for _ in latents]
        grid = [torch.stack(column) for column in zip(*grid)]
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        actions, mask = batch["actions"], batch["action_mask"]
        true = shortcut_forcing_loss(dynamics, latents, actions, mask, *grid, noise)
        other = shortcut_forcing_loss(dynamics, latents, actions.roll(1, 0), mask.roll(1, 0), *grid, noise)
        self.flow += true.loss.item() * len(latents)
        self.flow_with_other_actions += other.loss.item() * len(latents)

    def _add_dream(self, dynamics, tokenizer, pixels, latents, batch, generator) -> None:
        """Dreams the last frames of each window from the first ones, and compares with repeating the last of those."""
        horizon = min(MAX_HORIZON, pixels.shape[1] - 1)
        past, future = slice(None, -horizon), slice(-horizon, None)
        actions, mask = batch["actions"], batch["action_mask"]
        dreamt = dynamics.generate(
            latents[:, past],
            actions[:, future],
            context_actions=actions[:, past],
            action_mask=mask[:, future],
            context_action_mask=mask[:, past],
            generator=generator,
        ).latents
        frames = tokenizer.decode(torch.cat([latents[:, past].float(), dreamt], dim=1)).pixel_values_videos[:, future]
        real, last = pixels[:, future], pixels[:, past][:, -1:]
        self.dream_error += (frames.float() - real).square().mean(dim=(2, 3, 4)).sum(dim=0).cpu()
        self.repeat_error += (last - real).square().mean(dim=(2, 3, 4)).sum(dim=0).cpu()

    def values(self) -> dict[str, float]:
        """Flow loss; how many times larger it is with the actions of another window; PSNR of the first and the last
        dreamt frame, each beside the PSNR of repeating the last real frame."""
        values = {
            "eval_flow_loss": self.flow / self.windows,
            "eval_action_shuffle_ratio": self.flow_with_other_actions / self.flow,
        }
        horizon = len(self.dream_error)
        for step in sorted({1, horizon}):
            values[f"eval_psnr_{step}"] = psnr(self.dream_error[step - 1].item() / self.windows)
            values[f"eval_repeat_psnr_{step}"] = psnr(self.repeat_error[step - 1].item() / self.windows)
        return values

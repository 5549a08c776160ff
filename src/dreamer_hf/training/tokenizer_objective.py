"""Training the tokenizer: masked autoencoding (arXiv 2509.24527, section 3.1)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..configuration_dreamer import DreamerTokenizerConfig
from ..evaluation.videos import image_grid
from ..frame_inputs import to_unit_range
from ..image_metrics import VideoQuality, load_lpips
from ..losses import TOKENIZER_LOSS_WEIGHTS, ColorPyramid, tokenizer_loss_terms
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..video_processing_dreamer import DreamerVideoProcessor
from .arguments import TokenizerArguments
from .batches import BatchStream, fixed_windows, open_splits, sample_frames
from .finetune import TOKENIZER, load_for_finetuning
from .randomness import RowNumbers, seeded_generator
from .trainer import Batch, Evaluation, Scalars

PLATEAU_MARGIN = 1.0
"""Decibels above the mean image below which a tokenizer has learned nothing but the background."""


class TokenizerObjective:
    """A new tokenizer for the data at hand; an `Objective` for `Trainer`.

    Args:
        arguments: keys of the run.
        process, num_processes: which of how many processes this is.
        device: where to train.

    Raises:
        ValueError, FileNotFoundError: data that is missing, damaged, or does not fit the keys.
    """

    def __init__(self, arguments: TokenizerArguments, process: int, num_processes: int, device: torch.device):
        self.device = device
        self.identity = {}
        self.train_data, self.test_data = open_splits(arguments)
        if self.train_data.image_size is None:
            raise ValueError(
                f"{arguments.data_dir} holds latents: give the folder of frames that they were made from."
            )
        self.stream = BatchStream(self.train_data, arguments, process, num_processes, device)
        frames = to_unit_range(sample_frames(self.train_data, count=256))
        self.mean_image = frames.mean(dim=0).to(device)
        self.eval_batches = fixed_windows(self.test_data, arguments.eval_windows, arguments.per_device_batch_size)
        self.model = self._new_model(arguments, frames)
        self.max_latent_noise = arguments.max_latent_noise
        if self.model.config.max_mask_ratio == 0:
            self.model.encoder.mask_token.requires_grad_(False)  # never used: DDP would wait for its gradient
        self.perceptual = load_lpips(arguments.lpips_net, device)
        self.pyramid = ColorPyramid(frames) if arguments.pyramid_weight > 0 else None
        self.loss_weights = TOKENIZER_LOSS_WEIGHTS | {"pyramid": arguments.pyramid_weight}

    def _new_model(self, arguments: TokenizerArguments, frames: torch.Tensor) -> DreamerTokenizerModel:
        height, width = self.train_data.image_size
        values = {"image_size": height if height == width else [height, width]} | arguments.model_values()
        if arguments.pretrained:
            model = load_for_finetuning(arguments.pretrained, TOKENIZER, values)
            model.encoder.requires_grad_(not arguments.freeze_encoder)
            return model
        if arguments.image_stats == "data":
            values["image_mean"] = frames.mean(dim=(0, 2, 3)).tolist()
            # A channel that never changes has nothing to be scaled by; one gray level is the finest there is.
            values["image_std"] = frames.std(dim=(0, 2, 3)).clamp(min=1 / 255).tolist()
        return DreamerTokenizerModel(DreamerTokenizerConfig(**values))

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """See `Objective`."""
        return self.stream.batches(start_step)

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`; the terms are `mse`, where its weights are at hand `lpips`, and `pyramid` if asked for."""
        pixels = to_unit_range(batch["pixel_values_videos"])
        mask, noise = self._corruption(rows, pixels.shape[1])
        reconstruction = model(pixels, patch_mask=mask, latent_noise=noise).reconstruction
        return tokenizer_loss_terms(reconstruction, pixels, self.perceptual, self.pyramid), {}

    def _corruption(self, rows: RowNumbers, num_frames: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Patch mask (B,T,N_p) and latent noise (B,T,N_z,d_z) of a batch; None for what the run does without."""
        masks, noises = [], []
        for _, generator in rows.generators(self.device):
            if self.model.config.max_mask_ratio > 0:
                masks.append(self.model.sample_patch_mask(1, num_frames, generator))
            if self.max_latent_noise > 0:
                noises.append(self._latent_noise(num_frames, generator))
        return torch.cat(masks) if masks else None, torch.cat(noises) if noises else None

    def _latent_noise(self, num_frames: int, generator: torch.Generator) -> torch.Tensor:
        """Normal noise (1,T,N_z,d_z), of a deviation that each frame draws from U(0, max_latent_noise)."""
        config = self.model.config
        shape = (1, num_frames, config.num_latent_tokens, config.latent_dim)
        deviation = torch.rand((1, num_frames, 1, 1), generator=generator, device=self.device) * self.max_latent_noise
        return deviation * torch.randn(shape, generator=generator, device=self.device)

    def evaluate(self, model: DreamerTokenizerModel) -> Evaluation:
        """See `Objective`; the reconstruction is measured with nothing masked. The picture has three rows: frames with
        masked patches, their reconstructions, and the frames."""
        quality, floor = VideoQuality(self.perceptual), VideoQuality()
        for batch in self.eval_batches:
            pixels = to_unit_range(batch["pixel_values_videos"].to(self.device))
            quality.add(model(pixels).reconstruction.clamp(0, 1), pixels)
            floor.add(self.mean_image.expand_as(pixels), pixels)
        values = {f"eval_{name}": value for name, value in quality.values().items()}
        values["eval_mean_image_psnr"] = floor.values()["psnr"]
        return Evaluation(values, {"masked_reconstructed_real": self._picture(model)})

    def _picture(self, model: DreamerTokenizerModel) -> np.ndarray:
        pixels = to_unit_range(self.eval_batches[0]["pixel_values_videos"].to(self.device))
        mask = model.sample_patch_mask(*pixels.shape[:2], seeded_generator(self.device, 0))
        reconstruction = model(pixels, patch_mask=mask).reconstruction
        hidden = mask.unflatten(2, model.config.grid_size).repeat_interleave(model.config.patch_size, 2)
        hidden = hidden.repeat_interleave(model.config.patch_size, 3)[:, :, None]
        masked = pixels.masked_fill(hidden, 0.5)
        # The last frame of each window: the one that knows most of the past.
        return image_grid([video[:8, -1] for video in (masked, reconstruction, pixels)])

    def save(self, folder: Path, model: DreamerTokenizerModel, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; a `DreamerTokenizerModel` folder with its processor."""
        model.save_pretrained(folder, state_dict=dict(state_dict))
        DreamerVideoProcessor.for_tokenizer(model.config).save_pretrained(folder)

    def summary(self, values: dict[str, float]) -> str:
        """See `Objective`."""
        ours, floor = values["eval_psnr"], values["eval_mean_image_psnr"]
        text = f"held-out reconstruction {ours:.2f} dB, against {floor:.2f} dB for the mean image."
        if ours < floor + PLATEAU_MARGIN:
            text += (
                "\nwarning: that is the mean image and little else: this tokenizer has learned the background only. "
                "Train longer, or with --image_stats data and another --learning_rate."
            )
        return text

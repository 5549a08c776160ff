"""Training the tokenizer: masked autoencoding (arXiv 2509.24527, section 3.1).

Shapes: B windows, T frames, N_p patches, N_z latent tokens, d_z latent channels, H, W pixels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..configuration_dreamer import DreamerTokenizerConfig
from ..data.windows import EachCamera
from ..evaluation.videos import image_grid
from ..frame_inputs import to_unit_range
from ..image_metrics import VideoQuality, load_lpips
from ..losses import TOKENIZER_LOSS_WEIGHTS, ColorPyramid, tokenizer_loss_terms
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..video_processing_dreamer import DreamerVideoProcessor
from .arguments import TokenizerArguments
from .batches import BatchStream, fixed_windows, open_splits, sample_frames
from .finetune import TOKENIZER, load_for_finetuning
from .flops import BACKWARD, decoder_flops, encoder_flops
from .objective import Batch, Evaluation, Scalars
from .randomness import RowNumbers, seeded_generator
from .verdicts import History, tokenizer_verdict


class TokenizerObjective:
    """Trains a tokenizer on frames; an `Objective` for `Trainer`.

    Args:
        arguments: options of the run.
        process, num_processes: number of this process and number of all processes.
        device: where to train.

    Raises:
        ValueError, FileNotFoundError: data that is missing, damaged, or does not fit the options.
    """

    normalizes_losses = True

    def __init__(self, arguments: TokenizerArguments, process: int, num_processes: int, device: torch.device):
        self.device = device
        self.identity = {}
        self.train_data, self.test_data = open_splits(arguments)
        if self.train_data.image_size is None:
            raise ValueError(
                f"{arguments.data.data_dir} holds latents: give the folder of frames that they were made from."
            )
        train, test = self.train_data, self.test_data
        if train.camera_names is not None:  # One tokenizer for all of them.
            train, test = EachCamera(train), EachCamera(test)
        self.stream = BatchStream(train, arguments, process, num_processes, device)
        frames = to_unit_range(sample_frames(train, count=256))
        self.mean_image = frames.mean(dim=0).to(device)
        self.eval_batches = fixed_windows(test, arguments.run.eval_windows, arguments.data.per_device_batch_size)
        self.model = self._new_model(arguments, frames)
        self.encoder_is_frozen = arguments.objective.freeze_encoder
        self.max_latent_noise = arguments.objective.max_latent_noise
        if self.model.config.max_mask_ratio == 0:
            self.model.encoder.mask_token.requires_grad_(False)  # It is never used: DDP would wait for its gradient.
        self.perceptual = load_lpips(arguments.run.lpips_net, device)
        self.pyramid = ColorPyramid(frames) if arguments.objective.pyramid_weight > 0 else None
        self.loss_weights = TOKENIZER_LOSS_WEIGHTS | {"pyramid": arguments.objective.pyramid_weight}

    def _new_model(self, arguments: TokenizerArguments, frames: torch.Tensor) -> DreamerTokenizerModel:
        height, width = self.train_data.image_size
        values = {"image_size": height if height == width else [height, width]} | arguments.model_values()
        if arguments.run.pretrained:
            model = load_for_finetuning(arguments.run.pretrained, TOKENIZER, values)
            model.encoder.requires_grad_(not arguments.objective.freeze_encoder)
            return model
        # Pixels are scaled by the data's own statistics, without which small tokenizers stay at the mean image. A
        # channel that never changes cannot scale anything: one gray level is the smallest deviation.
        mean, std = frames.mean(dim=(0, 2, 3)), frames.std(dim=(0, 2, 3)).clamp(min=1 / 255)
        return DreamerTokenizerModel(
            DreamerTokenizerConfig(image_mean=mean.tolist(), image_std=std.tolist(), **values)
        )

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """See `Objective`."""
        return self.stream.batches(start_step)

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """See `Objective`; the terms are `mse`, `lpips` if its weights are here, and `pyramid` on request."""
        pixels = to_unit_range(batch["pixel_values_videos"])
        mask, noise = self._corruption(rows, pixels.shape[1])
        reconstruction = model(pixels, patch_mask=mask, latent_noise=noise).reconstruction
        return tokenizer_loss_terms(reconstruction, pixels, self.perceptual, self.pyramid), {}

    def _corruption(self, rows: RowNumbers, num_frames: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return a patch mask (B,T,N_p) and latent noise (B,T,N_z,d_z) for a batch; None for what the run lacks."""
        masks, noises = [], []
        for _, generator in rows.generators(self.device):
            if self.model.config.max_mask_ratio > 0:
                masks.append(self.model.sample_patch_mask(1, num_frames, generator))
            if self.max_latent_noise > 0:
                noises.append(self._latent_noise(num_frames, generator))
        return torch.cat(masks) if masks else None, torch.cat(noises) if noises else None

    def _latent_noise(self, num_frames: int, generator: torch.Generator) -> torch.Tensor:
        """Return normal noise (1,T,N_z,d_z), whose deviation is drawn per frame from U(0, max_latent_noise)."""
        config = self.model.config
        shape = (1, num_frames, config.num_latent_tokens, config.latent_dim)
        deviation = torch.rand((1, num_frames, 1, 1), generator=generator, device=self.device) * self.max_latent_noise
        return deviation * torch.randn(shape, generator=generator, device=self.device)

    def flops(self, num_rows: int, num_frames: int, step: int) -> float:
        """See `Objective`."""
        encoder, decoder = (count(self.model.config, num_frames) for count in (encoder_flops, decoder_flops))
        return num_rows * ((1 if self.encoder_is_frozen else 1 + BACKWARD) * encoder + (1 + BACKWARD) * decoder)

    def evaluate(self, model: DreamerTokenizerModel) -> Evaluation:
        """See `Objective`; the reconstruction is measured without a mask. The image has three rows: frames with masked
        patches, their reconstructions, and the frames."""
        quality, floor = VideoQuality(self.perceptual), VideoQuality()
        for batch in self.eval_batches:
            pixels = to_unit_range(batch["pixel_values_videos"].to(self.device))
            quality.add(model(pixels).reconstruction.clamp(0, 1), pixels)
            floor.add(self.mean_image.expand_as(pixels), pixels)
        values = {f"eval_{name}": value for name, value in quality.values().items()}
        values["eval_mean_image_psnr"] = floor.values()["psnr"]
        return Evaluation(values, {"masked_reconstructed_real": self._image(model)})

    def _image(self, model: DreamerTokenizerModel) -> np.ndarray:
        pixels = to_unit_range(self.eval_batches[0]["pixel_values_videos"].to(self.device))
        mask = model.sample_patch_mask(*pixels.shape[:2], seeded_generator(self.device, 0))
        reconstruction = model(pixels, patch_mask=mask).reconstruction
        hidden = mask.unflatten(2, model.config.grid_size).repeat_interleave(model.config.patch_size, 2)
        hidden = hidden.repeat_interleave(model.config.patch_size, 3)[:, :, None]
        masked = pixels.masked_fill(hidden, 0.5)
        # The last frame of each window is the one with the longest context.
        return image_grid([video[:8, -1] for video in (masked, reconstruction, pixels)])

    def save(self, folder: Path, model: DreamerTokenizerModel, state_dict: dict[str, torch.Tensor]) -> None:
        """See `Objective`; writes a `DreamerTokenizerModel` folder with its processor."""
        model.save_pretrained(folder, state_dict=dict(state_dict))
        DreamerVideoProcessor.for_tokenizer(model.config).save_pretrained(folder)

    def verdict(self, values: dict[str, float], history: History) -> str:
        """See `Objective`."""
        return tokenizer_verdict(values, history)

"""The causal tokenizer: a masked autoencoder from video frames to continuous latents (arXiv 2509.24527, section 3.1).

Shapes: B batch, T frames, C color channels, H, W image height and width, p patch size, N_p patches of a frame,
N_z latent tokens, d_z latent channels, D hidden size. The bottleneck has N_b tokens of d_b channels with
N_b d_b = N_z d_z; these are the latents, unless tokens are grouped (`latent_group_size`).
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .cache_dreamer import DreamerCache, additive_mask
from .configuration_dreamer import DreamerTokenizerConfig
from .frame_inputs import FrameInput, prepare_frames
from .modeling_layers import DreamerPreTrainedModel, DreamerTransformer


@dataclass
class DreamerTokenizerOutput(ModelOutput):
    """Output of [`DreamerTokenizerModel`].

    Args:
        reconstruction (`torch.FloatTensor` of shape `(B, T, C, H, W)`): frames on the [0, 1] scale, not clamped.
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): in (-1, 1).
        patch_mask (`torch.BoolTensor` of shape `(B, T, N_p)`, *optional*): True where a patch was hidden.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): of the encoder layers, then of the decoder layers;
            returned with `output_hidden_states=True`.
        attentions (`tuple(torch.FloatTensor)`, *optional*): likewise; returned with `output_attentions=True`.
    """

    reconstruction: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    patch_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class DreamerEncoderOutput(ModelOutput):
    """Output of [`DreamerTokenizerModel.encode`].

    Args:
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): in (-1, 1).
        past_key_values (`DreamerCache`, *optional*): the given cache, which now includes these frames.
    """

    latents: torch.FloatTensor | None = None
    past_key_values: DreamerCache | None = None


@dataclass
class DreamerDecoderOutput(ModelOutput):
    """Output of [`DreamerTokenizerModel.decode`].

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, T, C, H, W)`): frames in [0, 1].
        past_key_values (`DreamerCache`, *optional*): the given cache, which now includes these frames.
    """

    pixel_values_videos: torch.FloatTensor | None = None
    past_key_values: DreamerCache | None = None


def encoder_visibility(config: DreamerTokenizerConfig, device: torch.device) -> torch.BoolTensor:
    """Return which of the encoder's tokens [N_p patches | N_b latent tokens] sees which: (N,N) bool, row sees column.

    Patches see patches. Latent tokens see everything, or with `spatial_latents` only themselves and their own cell,
    except for the last `num_whole_frame_tokens`. In the decoder it is the other way round: its mask is the transpose.
    """
    num_patches, num_latents = config.num_patches, config.bottleneck_shape[0]
    visible = torch.ones(num_patches + num_latents, num_patches + num_latents, dtype=torch.bool, device=device)
    visible[:num_patches, num_patches:] = False
    if config.spatial_latents:
        rows, columns = (torch.arange(side, device=device) // config.cell_size for side in config.grid_size)
        cells = (rows[:, None] * (columns[-1] + 1) + columns).flatten()
        latents = torch.arange(num_latents, device=device)[:, None]
        sees_all = latents >= num_latents - config.num_whole_frame_tokens
        visible[num_patches:] = torch.cat([latents == cells, latents == latents.T], dim=1) | sees_all
    return visible


class DreamerEncoder(nn.Module):
    """Encoder from the tokens [N_p patches | N_b learned latent tokens] of a frame to latents.

    `encoder_visibility` says which token sees which. A linear map and tanh follow the transformer.
    """

    def __init__(self, config: DreamerTokenizerConfig):
        super().__init__()
        self.config = config
        self.num_patches, self.latent_shape = config.num_patches, (config.num_latent_tokens, config.latent_dim)
        num_tokens, num_channels = config.bottleneck_shape
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        if config.patch_positions:
            rows, columns = config.grid_size
            self.row_positions = nn.Parameter(torch.empty(rows, config.hidden_size))
            self.column_positions = nn.Parameter(torch.empty(columns, config.hidden_size))
        self.latent_tokens = nn.Parameter(torch.empty(num_tokens, config.hidden_size))
        output_tokens = slice(self.num_patches, self.num_patches + num_tokens)
        self.transformer = DreamerTransformer(config, config.num_encoder_layers, output_tokens)
        self.latent_proj = nn.Linear(config.hidden_size, num_channels)

    def forward(
        self,
        pixels: torch.Tensor,
        patch_mask: torch.Tensor | None = None,
        past_key_values: DreamerCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Map normalized pixels (B,T,C,H,W), with an optional mask (B,T,N_p), to latents (B,T,N_z,d_z)."""
        batch, frames = pixels.shape[:2]
        patches = self.patch_embed(pixels.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (batch, frames))
        if patch_mask is not None:
            patches = torch.where(patch_mask[..., None], self.mask_token, patches)
        if self.config.patch_positions:
            patches = patches + (self.row_positions[:, None] + self.column_positions).flatten(0, 1)
        tokens = torch.cat([patches, self.latent_tokens.expand(batch, frames, -1, -1)], dim=2)
        hidden_states = self.transformer(tokens, self._space_mask(tokens), past_key_values, **kwargs)
        return torch.tanh(self.latent_proj(hidden_states)).reshape(batch, frames, *self.latent_shape)

    def _space_mask(self, tokens: torch.Tensor) -> torch.Tensor:
        return additive_mask(encoder_visibility(self.config, tokens.device), tokens.dtype)[None, None]


class DreamerRefiner(nn.Module):
    """Convolutions that sharpen a frame after a decoder has drawn it.

    A patch is a linear map of one token, too narrow for a sharp edge at every place and angle of a large patch. What
    makes an edge sharp is the same everywhere, so small convolutions learn it from few frames. A learned offset for
    each place lets them know what always stands there. They start as the identity.
    """

    def __init__(self, config: DreamerTokenizerConfig):
        super().__init__()
        self.config = config
        widths = [config.num_channels, *[config.refiner_channels] * (config.refiner_layers - 1), config.num_channels]
        self.layers = nn.ModuleList([nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(widths)])
        self.places = nn.Parameter(torch.empty(config.refiner_channels, *config.frame_size))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map normalized pixels (F,C,H,W) to the same, sharper."""
        hidden = self.layers[0](frames) + self.places
        for layer in self.layers[1:]:
            hidden = layer(nn.functional.silu(hidden))
        return frames + hidden


class DreamerDecoder(nn.Module):
    """Decoder from the tokens [N_p learned patch queries | N_b latents] of a frame to normalized pixels.

    The transpose of `encoder_visibility` says which token sees which. The patches may be a smaller draft of the frame,
    and a `DreamerRefiner` may follow.
    """

    def __init__(self, config: DreamerTokenizerConfig):
        super().__init__()
        self.config = config
        self.num_patches, self.patch_size = config.num_patches, config.drawn_patch_size
        self.grid_size, self.bottleneck_shape = config.grid_size, config.bottleneck_shape
        self.latent_embed = nn.Linear(self.bottleneck_shape[1], config.hidden_size)
        self.patch_queries = nn.Parameter(torch.empty(config.num_patches, config.hidden_size))
        self.transformer = DreamerTransformer(config, config.num_decoder_layers, slice(0, config.num_patches))
        self.pixel_head = nn.Linear(config.hidden_size, config.num_channels * self.patch_size**2)
        self.frame_size = config.frame_size
        self.refiner = DreamerRefiner(config) if config.refiner_channels else None

    def forward(
        self,
        latents: torch.Tensor,
        past_key_values: DreamerCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Map latents (B,T,N_z,d_z) to normalized pixels (B,T,C,H,W)."""
        batch, frames = latents.shape[:2]
        queries = self.patch_queries.expand(batch, frames, -1, -1)
        bottleneck = latents.reshape(batch, frames, *self.bottleneck_shape)
        tokens = torch.cat([queries, self.latent_embed(bottleneck)], dim=2)
        hidden_states = self.transformer(tokens, self._space_mask(tokens), past_key_values, **kwargs)
        patches = self.pixel_head(hidden_states).flatten(0, 1).transpose(1, 2)
        grid = patches.unflatten(2, self.grid_size)
        drawn = nn.functional.pixel_shuffle(grid, self.patch_size)
        if drawn.shape[-2:] != self.frame_size:
            drawn = nn.functional.interpolate(drawn, self.frame_size, mode="bilinear", align_corners=False)
        if self.refiner is not None:
            drawn = self.refiner(drawn)
        return drawn.unflatten(0, (batch, frames))

    def _space_mask(self, tokens: torch.Tensor) -> torch.Tensor:
        return additive_mask(encoder_visibility(self.config, tokens.device).T, tokens.dtype)[None, None]


class DreamerTokenizerModel(DreamerPreTrainedModel):
    """Autoencoder from video frames to continuous latents and back, causal in time (arXiv 2509.24527, section 3.1).

    Both halves can run frame by frame with a cache ([`~DreamerTokenizerModel.new_encoder_cache`],
    [`~DreamerTokenizerModel.new_decoder_cache`]).

    ```python
    tokenizer = DreamerTokenizerModel.from_pretrained("path-or-repo")
    latents = tokenizer.encode(pixel_values_videos).latents        # (B, T, N_z, d_z) in (-1, 1)
    frames = tokenizer.decode(latents).pixel_values_videos          # (B, T, C, H, W) in [0, 1]
    ```
    """

    config: DreamerTokenizerConfig

    def __init__(self, config: DreamerTokenizerConfig):
        super().__init__(config)
        self.encoder = DreamerEncoder(config)
        self.decoder = DreamerDecoder(config)
        statistics_shape = (config.num_channels, 1, 1)
        self.register_buffer("image_mean", torch.empty(statistics_shape, dtype=torch.float32), persistent=False)
        self.register_buffer("image_std", torch.empty(statistics_shape, dtype=torch.float32), persistent=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DreamerEncoder):
            init.normal_(module.mask_token)
            init.normal_(module.latent_tokens)
            if self.config.patch_positions:
                init.normal_(module.row_positions, std=0.5**0.5)
                init.normal_(module.column_positions, std=0.5**0.5)
            # Latents start in the linear part of the tanh: saturated ones have no gradient, and training then stops at
            # the mean image (docs/decisions/0001). The decoder compensates for their size.
            init.normal_(module.latent_proj.weight, std=0.2 * self.config.hidden_size**-0.5)
        elif isinstance(module, DreamerDecoder):
            init.normal_(module.patch_queries)
            init.normal_(module.latent_embed.weight, std=2 * module.latent_embed.in_features**-0.5)
            init.zeros_(module.pixel_head.weight)
        elif isinstance(module, DreamerRefiner):
            init.zeros_(module.places)
            init.zeros_(module.layers[-1].weight)
        elif isinstance(module, DreamerTokenizerModel):
            init.copy_(module.image_mean, torch.tensor(self.config.image_mean)[:, None, None])
            init.copy_(module.image_std, torch.tensor(self.config.image_std)[:, None, None])

    def get_input_embeddings(self) -> nn.Module:
        """Return the projection of patches into tokens."""
        return self.encoder.patch_embed

    def new_encoder_cache(self, batch_size: int = 1) -> DreamerCache:
        """Return an empty cache of `batch_size` rows for `encode`."""
        return self.encoder.transformer.new_cache(batch_size, self.device)

    def new_decoder_cache(self, batch_size: int = 1, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """Return an empty cache of `batch_size` rows for `decode`, whose first frame is at `start_position`."""
        return self.decoder.transformer.new_cache(batch_size, self.device, start_position)

    def sample_patch_mask(
        self, batch_size: int, num_frames: int, generator: torch.Generator | None = None
    ) -> torch.BoolTensor:
        """Draw the patches to hide: a probability from U(0, max_mask_ratio) for each frame, then a coin for each
        patch.

        Args:
            batch_size, num_frames: B and T.
            generator: source of the draws, on the model's device; PyTorch's global one by default.

        Returns:
            (B,T,N_p) bool, True where a patch is hidden.
        """
        shape = (batch_size, num_frames, 1)
        ratio = torch.rand(shape, generator=generator, device=self.device) * self.config.max_mask_ratio
        coins = torch.rand((*shape[:2], self.config.num_patches), generator=generator, device=self.device)
        return coins < ratio

    def fingerprint(self) -> str:
        """Return a hash of the weights and the image statistics, which identifies the latents of this tokenizer.

        It is the same on every device, and changes with the dtype of the weights, because the latents do.
        """
        digest = hashlib.sha256(repr((self.config.image_mean, self.config.image_std)).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    @capture_outputs
    def forward(
        self,
        pixel_values_videos: torch.FloatTensor,
        patch_mask: torch.BoolTensor | None = None,
        latent_noise: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerTokenizerOutput:
        """Reconstruct frames through the latents.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, C, H, W)`): frames, float in [0, 1] or integer
                (0..255).
            patch_mask (`torch.BoolTensor` of shape `(B, T, N_p)`, *optional*): patches to hide from the encoder.
                Defaults to a draw of `sample_patch_mask` in training mode and to none in eval mode.
            latent_noise (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`, *optional*): noise to add to the latents
                before they are decoded; the returned latents do not contain it.

        Raises:
            ValueError: if the frames have another size than the config's.
        """
        frames = self._prepare(pixel_values_videos)
        if patch_mask is None and self.training and self.config.max_mask_ratio > 0:
            patch_mask = self.sample_patch_mask(*frames.shape[:2])
        latents = self.encoder(self._normalize(frames), patch_mask, **kwargs)
        decoded_from = latents if latent_noise is None else latents + latent_noise.to(latents.dtype)
        reconstruction = self._denormalize(self.decoder(decoded_from, **kwargs))
        return DreamerTokenizerOutput(reconstruction=reconstruction, latents=latents, patch_mask=patch_mask)

    @can_return_tuple
    def encode(
        self,
        pixel_values_videos: FrameInput,
        past_key_values: DreamerCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerEncoderOutput:
        """Encode frames into latents, without a patch mask.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, C, H, W)`): frames, integer (0..255) or float in
                [0, 1], tensor or array, on any device. Also a list of PIL images (one clip), or `StartFrames`.
            past_key_values (`DreamerCache`, *optional*): cache of the frames before these; updated in place.

        Raises:
            ValueError: if the frames have another size than the config's, or values outside their range.
        """
        latents = self.encoder(self._normalize(self._prepare(pixel_values_videos)), None, past_key_values, **kwargs)
        return DreamerEncoderOutput(latents=latents, past_key_values=past_key_values)

    @can_return_tuple
    def decode(
        self,
        latents: torch.FloatTensor,
        past_key_values: DreamerCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerDecoderOutput:
        """Decode latents into frames, clamped to [0, 1].

        Args:
            latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): latents in (-1, 1).
            past_key_values (`DreamerCache`, *optional*): cache of the frames before these; updated in place.

        Raises:
            ValueError: if the latents have another shape than the config's.
        """
        expected = (self.config.num_latent_tokens, self.config.latent_dim)
        if latents.ndim != 4 or latents.shape[2:] != expected:
            raise ValueError(
                f"expected latents of shape (B, T, {expected[0]}, {expected[1]}), got {tuple(latents.shape)}."
            )
        pixels = self.decoder(latents.to(self.device, self.dtype), past_key_values, **kwargs)
        frames = self._denormalize(pixels).clamp(0, 1)
        return DreamerDecoderOutput(pixel_values_videos=frames, past_key_values=past_key_values)

    def _prepare(self, frames: FrameInput) -> torch.Tensor:
        # In training mode values are not checked: every step would wait for the GPU.
        return prepare_frames(frames, self.config, self.device, check_range=not self.training)

    def _normalize(self, frames: torch.Tensor) -> torch.Tensor:
        # Always in float32, for the reason given below.
        return ((frames - self.image_mean.float()) / self.image_std.float()).to(self.dtype)

    def _denormalize(self, pixels: torch.Tensor) -> torch.Tensor:
        # Always in float32: near 1, bfloat16 is coarser than the 8 bits of a pixel.
        return pixels.float() * self.image_std.float() + self.image_mean.float()


__all__ = ["DreamerDecoderOutput", "DreamerEncoderOutput", "DreamerTokenizerModel", "DreamerTokenizerOutput"]

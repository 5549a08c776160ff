"""The interactive dynamics model, which denoises the latents of a frame given past frames and actions.

Source: arXiv 2509.24527, section 3.2.

Shapes: B batch, T frames, N_z latent tokens, d_z latent channels, R register tokens, A action tokens, a action width,
D hidden size, K_max signal levels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .cache_dreamer import DreamerCache
from .configuration_dreamer import DreamerDynamicsConfig
from .generation_dreamer import DreamerDynamicsRolloutMixin
from .modeling_layers import DreamerPreTrainedModel, DreamerTransformer
from .scheduling_shortcut import num_step_sizes


@dataclass
class DreamerDynamicsOutput(ModelOutput):
    """Output of [`DreamerDynamicsModel`].

    Args:
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): prediction of the clean latents.
        past_key_values (`DreamerCache`, *optional*): the given cache, which now includes the committed frames.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): of every layer; returned with
            `output_hidden_states=True`.
        attentions (`tuple(torch.FloatTensor)`, *optional*): of every layer; returned with `output_attentions=True`.
    """

    latents: torch.FloatTensor | None = None
    past_key_values: DreamerCache | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class DreamerActionEncoder(nn.Module):
    """Encoder from raw actions to the A action tokens of a frame: a learned base plus the sum of the components.

    Continuous components go through one linear map (normalized by the config's statistics), categorical and binary
    ones through a lookup. A frame without an action has only the base.
    """

    def __init__(self, config: DreamerDynamicsConfig):
        super().__init__()
        self.config = config
        self.action_tokens = nn.Parameter(torch.empty(config.num_action_tokens, config.hidden_size))
        self.continuous, self.categorical = config.continuous_action_indices, config.categorical_action_indices
        if self.continuous:
            self.action_proj = nn.Linear(len(self.continuous), config.hidden_size)
            for name in ("action_mean", "action_std"):
                statistic = torch.empty(len(self.continuous), dtype=torch.float32)
                self.register_buffer(name, statistic, persistent=False)
        if self.categorical:
            self.num_classes = [config.action_num_classes[index] for index in self.categorical]
            self.class_embeddings = nn.ModuleList([nn.Embedding(n, config.hidden_size) for n in self.num_classes])

    def forward(self, batch: int, frames: int, actions: torch.Tensor | None, action_mask: torch.Tensor | None):
        """Return tokens (B,T,A,D) for raw actions (B,T,a) or None and a mask (B,T) or None (True: has an action)."""
        tokens = self.action_tokens.expand(batch, frames, -1, -1)
        if actions is None:
            return tokens
        if action_mask is not None:
            # The values of a missing action, which may be NaN, must not reach the network, nor index a table.
            actions = actions.masked_fill(~action_mask[..., None], 0)
        encoded = self._encode(actions)
        if action_mask is not None:
            encoded = encoded * action_mask[..., None]
        return tokens + encoded[:, :, None]

    def _encode(self, actions: torch.Tensor) -> torch.Tensor:
        encoded = 0
        if self.continuous:
            # Indexing by a list would wait for the GPU, because the list becomes a tensor.
            values = torch.stack([actions[..., index] for index in self.continuous], dim=-1).float()
            values = (values - self.action_mean.float()) / self.action_std.float()
            encoded = self.action_proj(values.to(self.action_proj.weight.dtype))
        for index, table in zip(self.categorical, self.class_embeddings if self.categorical else ()):
            encoded = encoded + table(actions[..., index].round().long())
        return encoded

    def continuous_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the continuous components; 0 and 1 if the config has none."""
        stats, count = self.config.action_stats, len(self.continuous)
        if stats is None:
            return torch.zeros(count), torch.ones(count)
        mean, std = (torch.tensor([float(stats[key][index]) for index in self.continuous]) for key in ("mean", "std"))
        # A component that never moved in the data is not scaled.
        return mean, torch.where(std > 0, std, torch.ones_like(std))


class DreamerDynamicsModel(DreamerDynamicsRolloutMixin, DreamerPreTrainedModel):
    """Model that predicts the clean latents of every frame from noisy ones, the frames before it and its action.

    The tokens of a frame are [N_z latents | R registers | 1 control token (step size, signal level) | A action
    tokens], and every one sees every other. Signal levels and step sizes are indices on the grid of
    `scheduling_shortcut`. The model accepts any pair of valid indices.

    ```python
    dynamics = DreamerDynamicsModel.from_pretrained("path-or-repo")
    clean = dynamics(noisy_latents, signal_level_ids, step_size_ids, actions=actions).latents
    ```
    """

    config: DreamerDynamicsConfig
    main_input_name = "latents"

    def __init__(self, config: DreamerDynamicsConfig):
        super().__init__(config)
        self.latent_embed = nn.Linear(config.latent_dim, config.hidden_size, bias=False)
        self.register_tokens = nn.Parameter(torch.empty(config.num_register_tokens, config.hidden_size))
        self.step_size_embedding = nn.Embedding(num_step_sizes(config.num_signal_levels), config.hidden_size)
        self.signal_level_embedding = nn.Embedding(config.num_signal_levels, config.hidden_size)
        self.control_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.action_encoder = DreamerActionEncoder(config)
        self.transformer = DreamerTransformer(config, config.num_hidden_layers, slice(0, config.num_latent_tokens))
        self.latent_head = nn.Linear(config.hidden_size, config.latent_dim, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DreamerActionEncoder):
            init.normal_(module.action_tokens)
            if module.continuous:
                mean, std = module.continuous_statistics()
                init.copy_(module.action_mean, mean)
                init.copy_(module.action_std, std)
        elif isinstance(module, DreamerDynamicsModel):
            init.normal_(module.register_tokens)
            # Step sizes start almost alike, so a coarse step starts from what the finest one has learned.
            init.normal_(module.step_size_embedding.weight, std=0.1)
            init.zeros_(module.latent_head.weight)

    def get_input_embeddings(self) -> nn.Module:
        """Return the projection of latents into tokens."""
        return self.latent_embed

    def new_cache(self, batch_size: int = 1, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """Return an empty cache of `batch_size` rows for `past_key_values`; its first frame is at `start_position`."""
        return self.transformer.new_cache(batch_size, self.device, start_position)

    @capture_outputs
    def forward(
        self,
        latents: torch.FloatTensor,
        signal_level_ids: torch.LongTensor,
        step_size_ids: torch.LongTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        past_key_values: DreamerCache | None = None,
        num_commit_frames: int | None = None,
        num_copied_frames: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DreamerDynamicsOutput:
        """Predict clean latents.

        Args:
            latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): noisy latents.
            signal_level_ids (`torch.LongTensor` of shape `(B, T)`): index of each frame's signal level, 0..K_max-1.
            step_size_ids (`torch.LongTensor` of shape `(B, T)`): index of each frame's step size, 0..log2(K_max).
            actions (`torch.FloatTensor` of shape `(B, T, a)`, *optional*): raw actions in the data's units;
                `actions[:, t]` belongs to frame t. No frame has an action by default.
            action_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where a frame has no action. Every
                frame has one by default, if `actions` are given.
            past_key_values (`DreamerCache`, *optional*): cache of the frames before these; updated in place.
            num_commit_frames (`int`, *optional*): number of leading frames that the cache keeps. Defaults to all; with
                0 the cache is only read.
            num_copied_frames (`int`, *optional*): number of leading frames that are a context; the others are copies
                of it, one after another, and frame t of a copy sees frames 0..t-1 of the context and itself. Trains
                every frame on what a rollout shows it, in one pass; not possible with a cache.

        Raises:
            ValueError: if a shape does not fit the config, or `num_copied_frames` does not divide T or comes with a
                cache.
        """
        self._check_inputs(latents, signal_level_ids, step_size_ids, actions, action_mask)
        if num_copied_frames is not None and (
            past_key_values is not None or num_copied_frames < 1 or latents.shape[1] % num_copied_frames
        ):
            raise ValueError(
                f"num_copied_frames={num_copied_frames} needs a context, whole copies of it and no cache: "
                f"give {latents.shape[1]} frames in equal parts."
            )
        tokens = self._embed(latents, signal_level_ids, step_size_ids, actions, action_mask)
        hidden_states = self.transformer(tokens, None, past_key_values, num_commit_frames, num_copied_frames, **kwargs)
        clean = self._clean(self.latent_head(hidden_states), latents, signal_level_ids)
        return DreamerDynamicsOutput(latents=clean, past_key_values=past_key_values)

    def _clean(self, predicted: torch.Tensor, noisy: torch.Tensor, signal_level_ids: torch.Tensor) -> torch.Tensor:
        """Return the clean latents that the output of the last projection stands for."""
        if self.config.prediction == "x":
            return predicted
        remaining = 1 - signal_level_ids / self.config.num_signal_levels
        return noisy.to(predicted.dtype) + remaining.to(predicted.dtype)[..., None, None] * predicted

    def _embed(self, latents, signal_level_ids, step_size_ids, actions, action_mask) -> torch.Tensor:
        batch, frames = latents.shape[:2]
        registers = self.register_tokens.expand(batch, frames, -1, -1)
        if not self.config.step_size_conditioning:
            step_size_ids = torch.zeros_like(step_size_ids)
        control = [self.step_size_embedding(step_size_ids), self.signal_level_embedding(signal_level_ids)]
        control = self.control_proj(torch.cat(control, dim=-1))[:, :, None]
        action_tokens = self.action_encoder(batch, frames, actions, action_mask)
        return torch.cat([self.latent_embed(latents.to(self.dtype)), registers, control, action_tokens], dim=2)

    def _check_inputs(self, latents, signal_level_ids, step_size_ids, actions, action_mask) -> None:
        config = self.config
        if latents.ndim != 4 or latents.shape[2:] != (config.num_latent_tokens, config.latent_dim):
            raise ValueError(
                f"expected latents of shape (B, T, {config.num_latent_tokens}, {config.latent_dim}), got "
                f"{tuple(latents.shape)}."
            )
        frames = tuple(latents.shape[:2])
        expected = {"signal_level_ids": frames, "step_size_ids": frames, "action_mask": frames}
        expected["actions"] = (*frames, config.action_dim)
        given = {"signal_level_ids": signal_level_ids, "step_size_ids": step_size_ids}
        given |= {"action_mask": action_mask, "actions": actions}
        for name, tensor in given.items():
            if tensor is not None and tuple(tensor.shape) != expected[name]:
                raise ValueError(
                    f"expected {name} of shape {expected[name]} for these latents, got {tuple(tensor.shape)}."
                )


__all__ = ["DreamerDynamicsModel", "DreamerDynamicsOutput"]

"""The interactive dynamics model, which denoises the latents of a frame given past frames and actions.

Source: arXiv 2509.24527, section 3.2.

Shapes: B batch, T frames, N_z latent tokens, d_z latent channels, P state tokens, S state components, R register
tokens, A action tokens, a action width, G agent tokens, D hidden size, K_max signal levels.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .cache_dreamer import DreamerCache, additive_mask
from .configuration_dreamer import DreamerDynamicsConfig
from .generation_dreamer import DreamerDynamicsRolloutMixin
from .modeling_layers import DreamerPreTrainedModel, DreamerTransformer
from .scheduling_shortcut import num_step_sizes


@dataclass
class DreamerDynamicsOutput(ModelOutput):
    """Output of [`DreamerDynamicsModel`].

    Args:
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): prediction of the clean latents.
        states (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): prediction of the clean normalized states,
            float32; None if the model has no state.
        agent_states (`torch.FloatTensor` of shape `(B, T, G, D)`, *optional*): output of the agent tokens; None if
            there were none.
        past_key_values (`DreamerCache`, *optional*): the given cache, which now includes the committed frames.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): of every layer; returned with
            `output_hidden_states=True`.
        attentions (`tuple(torch.FloatTensor)`, *optional*): of every layer; returned with `output_attentions=True`.
    """

    latents: torch.FloatTensor | None = None
    states: torch.FloatTensor | None = None
    agent_states: torch.FloatTensor | None = None
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


class DreamerStateCoder(nn.Module):
    """The way of the state into the P state tokens of a frame and out of them.

    Into: a learned base plus one linear map of the noisy normalized state; only the base where a frame has no state.
    Out: one linear map of the tokens that the transformer returns.
    """

    def __init__(self, config: DreamerDynamicsConfig):
        super().__init__()
        self.config = config
        width = config.num_state_tokens * config.hidden_size
        self.state_tokens = nn.Parameter(torch.empty(config.num_state_tokens, config.hidden_size))
        self.state_proj = nn.Linear(config.state_dim, width)
        self.state_head = nn.Linear(width, config.state_dim)
        for name in ("state_mean", "state_std"):
            self.register_buffer(name, torch.empty(config.state_dim, dtype=torch.float32), persistent=False)

    def forward(self, batch: int, frames: int, states: torch.Tensor | None, state_mask: torch.Tensor | None):
        """Return tokens (B,T,P,D) for noisy normalized states (B,T,S) or None and a mask (B,T) or None."""
        tokens = self.state_tokens.expand(batch, frames, -1, -1)
        if states is None:
            return tokens
        if state_mask is not None:
            # The values of a missing state, which may be NaN, must not reach the network.
            states = states.masked_fill(~state_mask[..., None], 0)
        encoded = self.state_proj(states.to(self.state_proj.weight.dtype)).unflatten(-1, tokens.shape[2:])
        if state_mask is not None:
            encoded = encoded * state_mask[..., None, None]
        return tokens + encoded

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the last projection makes of the tokens (B,T,P,D): (B,T,S) float32."""
        return self.state_head(tokens.flatten(2)).float()

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation (S,) of the states; 0 and 1 if the config has none."""
        stats, size = self.config.state_stats, self.config.state_dim
        if stats is None:
            return torch.zeros(size), torch.ones(size)
        mean, std = (torch.tensor([float(value) for value in stats[key]]) for key in ("mean", "std"))
        # A component that never moved in the data is not scaled.
        return mean, torch.where(std > 0, std, torch.ones_like(std))


class DreamerDynamicsModel(DreamerDynamicsRolloutMixin, DreamerPreTrainedModel):
    """Model that predicts the clean latents of every frame from noisy ones, the frames before it and its action.

    The tokens of a frame are [N_z latents | P state tokens, if the world has a state | R registers | 1 control token
    (step size, signal level) | A action tokens], and every one sees every other. Signal levels and step sizes are
    indices on the grid of `scheduling_shortcut`. The model accepts any pair of valid indices. An agent's tokens (see
    [`DreamerAgentModel`]) come after these; they see all of them, and none of them sees an agent token.

    The latents of several cameras stand next to each other, in the order of `config.camera_names`, and those of each
    camera share a learned embedding. A state is noised and denoised like the latents. Rollouts, `generate` and data
    have states in the units of the data; `forward` takes and returns normalized ones (see `normalize_states` and
    `denormalize_states`).

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
        self.camera_embeddings = None
        if config.num_cameras > 1:
            self.camera_embeddings = nn.Parameter(torch.empty(config.num_cameras, config.hidden_size))
        self.register_tokens = nn.Parameter(torch.empty(config.num_register_tokens, config.hidden_size))
        self.step_size_embedding = nn.Embedding(num_step_sizes(config.num_signal_levels), config.hidden_size)
        self.signal_level_embedding = nn.Embedding(config.num_signal_levels, config.hidden_size)
        self.control_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.action_encoder = DreamerActionEncoder(config)
        self.state_coder = DreamerStateCoder(config) if config.state_dim else None
        self.transformer = DreamerTransformer(config, config.num_hidden_layers, slice(0, config.num_output_tokens))
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
        elif isinstance(module, DreamerStateCoder):
            init.normal_(module.state_tokens)
            init.zeros_(module.state_head.weight)
            mean, std = module.statistics()
            init.copy_(module.state_mean, mean)
            init.copy_(module.state_std, std)
        elif isinstance(module, DreamerDynamicsModel):
            init.normal_(module.register_tokens)
            if module.camera_embeddings is not None:
                init.normal_(module.camera_embeddings)
            # Step sizes start almost alike, so a coarse step starts from what the finest one has learned.
            init.normal_(module.step_size_embedding.weight, std=0.1)
            init.zeros_(module.latent_head.weight)

    def get_input_embeddings(self) -> nn.Module:
        """Return the projection of latents into tokens."""
        return self.latent_embed

    def new_cache(self, batch_size: int = 1, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """Return an empty cache of `batch_size` rows for `past_key_values`; its first frame is at `start_position`."""
        return self.transformer.new_cache(batch_size, self.device, start_position)

    def normalize_states(self, states: torch.Tensor) -> torch.Tensor:
        """Return states (..., S) in the units of the data as the network takes them, float32."""
        return (states.float() - self.state_coder.state_mean.float()) / self.state_coder.state_std.float()

    def denormalize_states(self, states: torch.Tensor) -> torch.Tensor:
        """Return normalized states (..., S) in the units of the data, float32."""
        return states.float() * self.state_coder.state_std.float() + self.state_coder.state_mean.float()

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
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
        agent_tokens: torch.FloatTensor | None = None,
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
            states (`torch.FloatTensor` of shape `(B, T, S)`, *optional*): noisy normalized states, at the signal
                levels of the latents. No frame has a state by default.
            state_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where a frame has no state. Every
                frame has one by default, if `states` are given.
            agent_tokens (`torch.FloatTensor` of shape `(B, T, G, D)`, *optional*): tokens of an agent, which see the
                frame, the past frames and their own past, and change nothing of the prediction. A cache keeps them if
                every pass that commits frames to it has them.

        Raises:
            ValueError: if a shape does not fit the config, or `num_copied_frames` does not divide T or comes with a
                cache.
        """
        self._check_inputs(latents, signal_level_ids, step_size_ids, actions, action_mask, states, state_mask)
        self._check_agent_tokens(agent_tokens, tuple(latents.shape[:2]))
        if num_copied_frames is not None and (
            past_key_values is not None or num_copied_frames < 1 or latents.shape[1] % num_copied_frames
        ):
            raise ValueError(
                f"num_copied_frames={num_copied_frames} needs a context, whole copies of it and no cache: "
                f"give {latents.shape[1]} frames in equal parts."
            )
        tokens = self._embed(latents, signal_level_ids, step_size_ids, actions, action_mask, states, state_mask)
        space_mask = output_tokens = None
        if agent_tokens is not None:
            space_mask = _hide_last_tokens(tokens, agent_tokens.shape[2])
            tokens, output_tokens = torch.cat([tokens, agent_tokens.to(tokens.dtype)], dim=2), slice(None)
        passed = past_key_values, num_commit_frames, num_copied_frames, output_tokens
        hidden_states = self.transformer(tokens, space_mask, *passed, **kwargs)
        agent_states = None
        if agent_tokens is not None:
            agent_states = hidden_states[:, :, -agent_tokens.shape[2] :]
            hidden_states = hidden_states[:, :, : self.config.num_output_tokens]
        clean_states = None
        if self.state_coder is not None:
            hidden_states, state_tokens = hidden_states.tensor_split([self.config.num_latent_tokens], dim=2)
            predicted = self.state_coder.decode(state_tokens)
            states = torch.zeros_like(predicted) if states is None else states
            clean_states = self._clean(predicted, states, signal_level_ids)
        clean = self._clean(self.latent_head(hidden_states), latents, signal_level_ids)
        return DreamerDynamicsOutput(clean, clean_states, agent_states, past_key_values)

    def _clean(self, predicted: torch.Tensor, noisy: torch.Tensor, signal_level_ids: torch.Tensor) -> torch.Tensor:
        """Return the clean latents or states that the output of the last projection stands for."""
        if self.config.prediction == "x":
            return predicted
        remaining = 1 - signal_level_ids / self.config.num_signal_levels
        remaining = remaining.to(predicted.dtype).view(*remaining.shape, *[1] * (predicted.ndim - 2))
        return noisy.to(predicted.dtype) + remaining * predicted

    def _embed(self, latents, signal_level_ids, step_size_ids, actions, action_mask, states, state_mask):
        batch, frames = latents.shape[:2]
        registers = self.register_tokens.expand(batch, frames, -1, -1)
        if not self.config.step_size_conditioning:
            step_size_ids = torch.zeros_like(step_size_ids)
        control = [self.step_size_embedding(step_size_ids), self.signal_level_embedding(signal_level_ids)]
        control = self.control_proj(torch.cat(control, dim=-1))[:, :, None]
        action_tokens = self.action_encoder(batch, frames, actions, action_mask)
        latent_tokens = self.latent_embed(latents.to(self.dtype))
        if self.camera_embeddings is not None:
            share = latents.shape[2] // len(self.camera_embeddings)
            latent_tokens = latent_tokens + self.camera_embeddings.repeat_interleave(share, dim=0)
        tokens = [latent_tokens, registers, control, action_tokens]
        if self.state_coder is not None:
            tokens.insert(1, self.state_coder(batch, frames, states, state_mask))
        return torch.cat(tokens, dim=2)

    def _check_inputs(
        self, latents, signal_level_ids, step_size_ids, actions, action_mask, states, state_mask
    ) -> None:
        config = self.config
        if latents.ndim != 4 or latents.shape[2:] != (config.num_latent_tokens, config.latent_dim):
            raise ValueError(
                f"expected latents of shape (B, T, {config.num_latent_tokens}, {config.latent_dim}), got "
                f"{tuple(latents.shape)}."
            )
        if states is not None and self.state_coder is None:
            raise ValueError("expected no states for a model without a state (state_dim=0): leave them out.")
        frames = tuple(latents.shape[:2])
        expected = dict.fromkeys(("signal_level_ids", "step_size_ids", "action_mask", "state_mask"), frames)
        expected |= {"actions": (*frames, config.action_dim), "states": (*frames, config.state_dim)}
        given = {"signal_level_ids": signal_level_ids, "step_size_ids": step_size_ids}
        given |= {"action_mask": action_mask, "actions": actions, "states": states, "state_mask": state_mask}
        for name, tensor in given.items():
            if tensor is not None and tuple(tensor.shape) != expected[name]:
                raise ValueError(
                    f"expected {name} of shape {expected[name]} for these latents, got {tuple(tensor.shape)}."
                )

    def _check_agent_tokens(self, agent_tokens: torch.Tensor | None, frames: tuple[int, int]) -> None:
        if agent_tokens is None:
            return
        size = self.config.hidden_size
        if agent_tokens.ndim != 4 or tuple(agent_tokens.shape[:2]) != frames or agent_tokens.shape[3] != size:
            raise ValueError(
                f"expected agent_tokens of shape ({frames[0]}, {frames[1]}, G, {size}), got "
                f"{tuple(agent_tokens.shape)}."
            )


def _hide_last_tokens(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mask (1,1,N+G,N+G) of a frame of the given N tokens and G = `count` more, which the N do not see."""
    is_last = torch.arange(tokens.shape[2] + count, device=tokens.device) >= tokens.shape[2]
    return additive_mask(is_last[:, None] | ~is_last[None, :], tokens.dtype)[None, None]


__all__ = ["DreamerDynamicsModel", "DreamerDynamicsOutput"]

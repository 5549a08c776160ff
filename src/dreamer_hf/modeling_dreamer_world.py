"""The world: a tokenizer and a dynamics model in one repository."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from .cache_dreamer import DreamerCache
from .configuration_dreamer import DreamerWorldConfig
from .frame_inputs import FrameInput
from .generation_dreamer import DreamerWorldRolloutMixin
from .modeling_dreamer_dynamics import DreamerDynamicsModel
from .modeling_dreamer_tokenizer import DreamerEncoderOutput, DreamerTokenizerModel
from .modeling_layers import DreamerPreTrainedModel
from .rollout_noise import draw_noise
from .scheduling_shortcut import add_noise


@dataclass
class DreamerWorldOutput(ModelOutput):
    """Output of [`DreamerWorldModel`].

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, T, C, H, W)`): the denoised frames in [0, 1].
        latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): the prediction of the clean latents.
        target_latents (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`): the latents of the given frames.
    """

    pixel_values_videos: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    target_latents: torch.FloatTensor | None = None


class DreamerWorldModel(DreamerWorldRolloutMixin, DreamerPreTrainedModel):
    """An interactive world: start it from frames, steer it with actions (arXiv 2509.24527).

    ```python
    world = DreamerWorldModel.from_pretrained("path-or-repo")
    rollout = world.start_rollout(pixel_values_videos)             # (B, C, 3, H, W) in [0, 1]
    frame = rollout.step(actions).pixel_values                     # (B, a) raw actions -> (B, 3, H, W) in [0, 1]
    ```

    Args:
        config: the world's configuration; taken from the two models if they are given instead.
        tokenizer, dynamics: models to join; new ones with random weights if not given.
    """

    config: DreamerWorldConfig

    def __init__(
        self,
        config: DreamerWorldConfig | None = None,
        tokenizer: DreamerTokenizerModel | None = None,
        dynamics: DreamerDynamicsModel | None = None,
    ):
        if config is None:
            if tokenizer is None or dynamics is None:
                raise ValueError(
                    "a world needs a config, or both a tokenizer and a dynamics model: give one of these."
                )
            # A composite configuration resets its parts' attention implementation unless it is told.
            parts = {"tokenizer_config": tokenizer.config, "dynamics_config": dynamics.config}
            attention = {name: part._attn_implementation for name, part in parts.items()}
            config = DreamerWorldConfig(**parts, attn_implementation=attention)
        super().__init__(config)
        self.tokenizer = tokenizer or DreamerTokenizerModel(config.tokenizer_config)
        self.dynamics = dynamics or DreamerDynamicsModel(config.dynamics_config)
        self.generation_config = self.dynamics.generation_config  # one for both
        self.post_init()

    def adjust_generation_fn(self, *args, **kwargs) -> None:
        super().adjust_generation_fn(*args, **kwargs)
        self.dynamics.generation_config = self.generation_config

    def encode(
        self, pixel_values_videos: FrameInput, past_key_values: DreamerCache | None = None
    ) -> DreamerEncoderOutput:
        """Encode frames into latents; see [`DreamerTokenizerModel.encode`]."""
        return self.tokenizer.encode(pixel_values_videos, past_key_values)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The two parts are models of their own and initialize themselves.
        pass

    @classmethod
    def from_tokenizer_dynamics_pretrained(cls, tokenizer_path, dynamics_path, **kwargs) -> "DreamerWorldModel":
        """Joins two saved models (folders or Hub repositories) into a world.

        Args:
            tokenizer_path, dynamics_path: what each model's `from_pretrained` takes.
            kwargs: passed to both `from_pretrained` (`dtype`, `revision`, ...).

        Raises:
            ValueError: the two do not speak of the same latents.
        """
        tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_path, **kwargs)
        dynamics = DreamerDynamicsModel.from_pretrained(dynamics_path, **kwargs)
        return cls(tokenizer=tokenizer, dynamics=dynamics)

    def forward(
        self,
        pixel_values_videos: torch.FloatTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        signal_level_ids: torch.LongTensor | None = None,
        step_size_ids: torch.LongTensor | None = None,
        noise: torch.FloatTensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> DreamerWorldOutput | tuple:
        """Encodes frames, adds noise, denoises them in one teacher-forced pass and decodes the prediction.

        Args:
            pixel_values_videos (`torch.FloatTensor` of shape `(B, T, C, H, W)`): frames in [0, 1].
            actions (`torch.FloatTensor` of shape `(B, T, a)`, *optional*): raw, aligned actions.
            action_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where a frame has no action.
            signal_level_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): levels to denoise from; half signal,
                half noise if not given.
            step_size_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): the finest step if not given.
            noise (`torch.FloatTensor` of shape `(B, T, N_z, d_z)`, *optional*): drawn if not given.
            return_dict (`bool`, *optional*): False returns a plain tuple.

        Raises:
            ValueError: a shape that does not fit the configs.
        """
        target = self.tokenizer.encode(pixel_values_videos).latents
        levels = self.config.dynamics_config.num_signal_levels
        if signal_level_ids is None:
            signal_level_ids = torch.full(target.shape[:2], levels // 2, device=target.device)
        if step_size_ids is None:
            step_size_ids = torch.zeros_like(signal_level_ids)
        if noise is None:
            noise = draw_noise(target.shape, None, target.device)
        noisy = add_noise(target, noise.to(target.dtype), (signal_level_ids / levels).to(target.dtype))
        latents = self.dynamics(noisy, signal_level_ids, step_size_ids, actions, action_mask).latents
        frames = self.tokenizer.decode(latents).pixel_values_videos
        output = DreamerWorldOutput(pixel_values_videos=frames, latents=latents, target_latents=target)
        return output.to_tuple() if return_dict is False else output


__all__ = ["DreamerWorldModel", "DreamerWorldOutput"]

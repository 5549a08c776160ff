"""Configurations of the Dreamer 4 tokenizer, the dynamics model and the world that joins them.

Source: arXiv 2509.24527, sections 3.1 (tokenizer), 3.2 (dynamics), 3.4 (transformer) and the appendix.
"""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


class DreamerSharedConfigMixin:
    """What a saved config says about its surroundings is true of the folder that it is saved to, and only a config of its
    own kind is read: the base class reads any, with a warning, and a model then gets random weights."""

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """As the base class.

        Raises:
            ValueError: what is there is another kind of model.
        """
        values, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            hint = f"give the folder or repository of a {cls.model_type}"
            if found == "dreamer_world":
                part = cls.model_type.removeprefix("dreamer_")
                hint = f"load it with DreamerWorldModel.from_pretrained and take its .{part}"
            raise ValueError(f"{pretrained_model_name_or_path} holds a {found}, not a {cls.model_type}: {hint}.")
        return values, kwargs

    def to_dict(self) -> dict:
        """As the base class, without the path that the config was loaded from (transformers would write those of a
        world's parts), and without `auto_map` where no code is saved: one that was loaded names files left behind."""
        values = super().to_dict()
        values.pop("_name_or_path", None)
        auto_map = values.pop("auto_map", None)
        if auto_map and self.is_remote_code():
            # transformers takes every class named *Tokenizer* for one of text, and writes (slow, fast) in its place.
            flat = {auto: name if isinstance(name, str) else name[0] for auto, name in auto_map.items()}
            values["auto_map"] = flat
        return values


@strict
class DreamerTransformerConfig(DreamerSharedConfigMixin, PreTrainedConfig):
    r"""
    What the tokenizer and the dynamics model have in common: one space-time transformer (section 3.4).

    Layers come in groups of `time_every`: the last layer of a group attends over time (causal, the last
    `context_length` frames, the current one included), the others attend over the tokens of one frame.

    Args:
        hidden_size (`int`): Width D of a token.
        intermediate_size (`int`, *optional*): Width of the SwiGLU layer; `floor(8 * hidden_size / 3)` if not given.
        num_attention_heads (`int`): Query heads; `hidden_size` must be a multiple of it, with an even quotient (RoPE).
        num_key_value_heads (`int`, *optional*): Key-value heads (grouped-query attention); the query heads if not given.
        context_length (`int`): Frames that a time layer sees, the current one included.
        time_every (`int`): Length of a group of layers; its last layer is the time layer.
        rms_norm_eps (`float`): Epsilon of RMSNorm. The published checkpoints use float32's machine epsilon.
        rope_theta (`float`): Base of the rotary position embedding, in space and in time.
        qk_norm (`bool`): L2-normalize queries and keys per head, with one learned scale per query head.
        attn_logit_softcapping (`float`, *optional*): `cap * tanh(logits / cap)` on the attention logits. SDPA has no
            such thing: attention then runs in `eager`.
        initializer_range (`float`, *optional*): Standard deviation of new linear weights; `1 / sqrt(fan_in)` if not
            given. Residual outputs and the last projection start at zero either way (docs/decisions/0001).
    """

    hidden_size: int = 512
    intermediate_size: int | None = None
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    context_length: int = 32
    time_every: int = 4
    rms_norm_eps: float = 1.1920929e-07
    rope_theta: float = 10000.0
    qk_norm: bool = False
    attn_logit_softcapping: float | None = None
    initializer_range: float | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 8 * self.hidden_size // 3
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_architecture(self):
        """Checks what one field alone cannot tell.

        Raises:
            ValueError: a combination that no model can have; the sentence says what would be valid.
        """
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} over num_attention_heads={self.num_attention_heads} does not give "
                "heads of an even width: choose hidden_size as a multiple of twice the number of heads."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} cannot share "
                f"num_key_value_heads={self.num_key_value_heads}: choose a divisor of the number of heads."
            )
        if self.time_every < 2 or self.context_length < 1:
            raise ValueError(
                f"time_every={self.time_every} and context_length={self.context_length} leave no transformer: "
                "choose at least 2 layers a group and at least 1 frame."
            )

    def _check_layers(self, field: str) -> None:
        if getattr(self, field) % self.time_every or getattr(self, field) < self.time_every:
            raise ValueError(
                f"{field}={getattr(self, field)} is not a whole number of groups: "
                f"choose a multiple of time_every={self.time_every}."
            )


@strict
class DreamerTokenizerConfig(DreamerTransformerConfig):
    r"""
    Configuration of [`DreamerTokenizerModel`], the causal tokenizer (section 3.1). The defaults are those of
    the published 400M tokenizers.

    Args:
        image_size (`int` or `list[int]`): Side of a square frame in pixels, or `[height, width]`.
        patch_size (`int`): Height and width of a patch in pixels.
        num_channels (`int`): Color channels of a frame.
        num_encoder_layers (`int`): Layers of the encoder, a multiple of `time_every`.
        num_decoder_layers (`int`): Layers of the decoder, a multiple of `time_every`.
        num_latent_tokens (`int`): Latent tokens of a frame, N_z.
        latent_dim (`int`): Channels of a latent token, d_z; each lies in (-1, 1).
        latent_group_size (`int`): Tokens of the bottleneck that make up one latent token, joined along its channels. The
            paper's Minecraft model has a bottleneck of 512 tokens of 16 channels and hands on 256 of 32: 2.
        spatial_latents (`bool`): Tokens of the bottleneck stand for the cells of a grid over the frame, in rows from the
            top left: in the encoder each sees the patches of its own cell alone, in the decoder a patch sees the token of
            its cell alone; patches see one another as ever. Not in the paper, where every token sees the whole frame:
            small tokenizers then find small things in minutes (docs/decisions/0003).
        max_mask_ratio (`float`): In training, the probability that a patch is masked is drawn per frame from
            U(0, max_mask_ratio); 0 trains a plain autoencoder.
        image_mean (`list[float]`), image_std (`list[float]`): Pixels in [0, 1] enter the network as
            `(pixel - mean) / std` per channel and leave it the inverse way.
    """

    model_type = "dreamer_tokenizer"

    hidden_size: int = 1024
    num_attention_heads: int = 16
    image_size: int | list[int] | tuple[int, ...] = 256
    patch_size: int = 16
    num_channels: int = 3
    num_encoder_layers: int = 16
    num_decoder_layers: int = 16
    num_latent_tokens: int = 256
    latent_dim: int = 32
    latent_group_size: int = 1
    spatial_latents: bool = False
    max_mask_ratio: float = 0.9
    image_mean: list[float | int] | None = None
    image_std: list[float | int] | None = None

    def __post_init__(self, **kwargs):
        self.image_mean = [0.5] * self.num_channels if self.image_mean is None else self.image_mean
        self.image_std = [0.5] * self.num_channels if self.image_std is None else self.image_std
        if not isinstance(self.image_size, int):  # one way to write each size, so that sizes can be compared
            sides = list(self.image_size)
            self.image_size = sides[0] if len(set(sides)) == 1 and len(sides) == 2 else sides
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Layers of encoder and decoder together."""
        return self.num_encoder_layers + self.num_decoder_layers

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches of one frame."""
        height, width = self.frame_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of one frame, N_p."""
        rows, columns = self.grid_size
        return rows * columns

    @property
    def bottleneck_shape(self) -> tuple[int, int]:
        """Tokens of the bottleneck and their channels: N_z d_z numbers a frame, as the latents."""
        return self.num_latent_tokens * self.latent_group_size, self.latent_dim // self.latent_group_size

    @property
    def cell_size(self) -> int | None:
        """Patches along the side of a square cell, one for each token of the bottleneck; None where no cells fit."""
        (rows, columns), tokens = self.grid_size, self.bottleneck_shape[0]
        side = math.isqrt(self.num_patches // tokens)
        fits = tokens * side**2 == self.num_patches and rows % side == 0 and columns % side == 0
        return side if fits else None

    def validate_architecture(self):
        """See the base class; also: whole patches, whole groups, one statistic per channel, a possible mask ratio."""
        super().validate_architecture()
        self._check_layers("num_encoder_layers")
        self._check_layers("num_decoder_layers")
        if len(self.frame_size) != 2:
            raise ValueError(f"image_size={self.image_size} is no size: give one side, or [height, width].")
        if any(side < self.patch_size or side % self.patch_size for side in self.frame_size):
            raise ValueError(
                f"image_size={self.image_size} is not a whole number of patches: "
                f"choose a multiple of patch_size={self.patch_size}."
            )
        if self.latent_group_size < 1 or self.latent_dim % self.latent_group_size:
            raise ValueError(
                f"latent_dim={self.latent_dim} cannot be shared by latent_group_size={self.latent_group_size} tokens: "
                "choose a divisor."
            )
        if self.spatial_latents and self.cell_size is None:
            tokens, (rows, columns) = self.bottleneck_shape[0], self.grid_size
            raise ValueError(
                f"num_latent_tokens={self.num_latent_tokens} gives a bottleneck of {tokens} tokens, which do not divide "
                f"{rows} x {columns} patches into square cells: with spatial_latents, choose {rows * columns} or a grid of whole cells."
            )
        if not 0 <= self.max_mask_ratio < 1:
            raise ValueError(f"max_mask_ratio={self.max_mask_ratio} is no ratio: choose at least 0 and below 1.")
        for name in ("image_mean", "image_std"):
            if len(getattr(self, name)) != self.num_channels:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values: give one for each of {self.num_channels} channels."
                )
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std={self.image_std} cannot scale pixels: give values above 0.")


@strict
class DreamerDynamicsConfig(DreamerTransformerConfig):
    r"""
    Configuration of [`DreamerDynamicsModel`], the interactive dynamics model (section 3.2). The defaults are those
    of the published 110M PushT model.

    Args:
        num_hidden_layers (`int`): Layers, a multiple of `time_every`.
        num_latent_tokens (`int`): Latent tokens of a frame, N_z, as the tokenizer's.
        latent_dim (`int`): Channels of a latent token, d_z, as the tokenizer's.
        num_register_tokens (`int`): Learned extra tokens of a frame.
        num_action_tokens (`int`): Tokens that carry the action of a frame.
        action_dim (`int`): Width of a raw action vector.
        action_num_classes (`list[int]`, *optional*): Per action component: 0 for a continuous one, otherwise the number
            of classes of a categorical one, 2 for a binary one (values 0, 1, ...). All continuous if not given.
        num_signal_levels (`int`): Signal levels K_max of the training grid, a power of two.
        prediction (`str`): What the last projection gives: `"x"`, the clean latents (the paper), or `"v"`, the velocity
            `z - noise`, from which the model makes clean latents. `forward` returns clean latents either way.
        step_size_conditioning (`bool`): Whether the step size is an input. False for a model of plain flow matching,
            which has learned the finest step alone: it then takes every step as one of those.
        action_offset (`int`): 1: the action token of frame t holds the command that led from frame t-1 to t. 0: the
            action recorded beside frame t (the published checkpoints).
        action_stats (`dict[str, list[float]]`, *optional*): `mean`, `std`, `min` and `max` of every action component,
            in the data's units. Continuous components enter the network as `(action - mean) / std`; raw if not given.
        action_names (`list[str]`, *optional*): Name of every action component.
        action_units (`list[str]`, *optional*): Unit of every action component, for people; `""` where it has none.
        relative_actions (`list[bool]`, *optional*): Per action component: True if it is a displacement, so that 0 means
            no motion; False if it is an absolute value. None if unknown.
        fps (`float`, *optional*, defaults to 10.0): Frames per second of the data.
    """

    model_type = "dreamer_dynamics"

    hidden_size: int = 768
    num_attention_heads: int = 12
    num_hidden_layers: int = 16
    num_latent_tokens: int = 256
    latent_dim: int = 32
    num_register_tokens: int = 4
    num_action_tokens: int = 1
    action_dim: int = 2
    action_num_classes: list[int] | None = None
    num_signal_levels: int = 128
    prediction: str = "x"
    step_size_conditioning: bool = True
    action_offset: int = 1
    action_stats: dict[str, list[float | int]] | None = None
    action_names: list[str] | None = None
    action_units: list[str] | None = None
    relative_actions: list[bool] | None = None
    fps: float | int | None = 10.0

    def __post_init__(self, **kwargs):
        if self.fps is None or isinstance(self.fps, int):
            self.fps = float(10 if self.fps is None else self.fps)
        super().__post_init__(**kwargs)

    @property
    def num_frame_tokens(self) -> int:
        """Tokens of one frame: latents, registers, control, actions."""
        return self.num_latent_tokens + self.num_register_tokens + 1 + self.num_action_tokens

    @property
    def continuous_action_indices(self) -> list[int]:
        """Positions of the continuous components in the action vector."""
        return [i for i, classes in enumerate(self._action_classes()) if classes == 0]

    @property
    def categorical_action_indices(self) -> list[int]:
        """Positions of the categorical and binary components in the action vector."""
        return [i for i, classes in enumerate(self._action_classes()) if classes > 0]

    def _action_classes(self) -> list[int]:
        return self.action_num_classes if self.action_num_classes is not None else [0] * self.action_dim

    def validate_architecture(self):
        """See the base class; also: whole groups, a grid of powers of two, action fields of the action's width."""
        super().validate_architecture()
        self._check_layers("num_hidden_layers")
        levels = self.num_signal_levels
        if levels < 2 or levels & (levels - 1):
            raise ValueError(f"num_signal_levels={levels} is no power of two: choose 2, 4, 8, ..., such as 128.")
        if self.prediction not in ("x", "v"):
            raise ValueError(
                f"prediction={self.prediction!r} is unknown: choose 'x' (clean latents) or 'v' (velocity)."
            )
        if self.action_offset not in (0, 1):
            raise ValueError(
                f"action_offset={self.action_offset} is unknown: choose 1 (causal) or 0 (recorded beside)."
            )
        if self.action_dim < 1 or self.num_action_tokens < 1:
            raise ValueError(
                f"action_dim={self.action_dim} and num_action_tokens={self.num_action_tokens} must be at least 1: "
                "for data without actions pass no actions instead."
            )
        if any(classes < 0 or classes == 1 for classes in self._action_classes()):
            raise ValueError(
                f"action_num_classes={self.action_num_classes} has an impossible count: use 0 or at least 2."
            )
        self._check_action_widths()

    def _check_action_widths(self) -> None:
        lists = ("action_names", "action_units", "action_num_classes", "relative_actions")
        widths = {name: getattr(self, name) for name in lists}
        widths |= {f"action_stats[{key!r}]": values for key, values in (self.action_stats or {}).items()}
        for name, values in widths.items():
            if values is not None and len(values) != self.action_dim:
                raise ValueError(
                    f"{name} has {len(values)} entries: give one for each of action_dim={self.action_dim}."
                )
        if self.action_stats is not None and not {"mean", "std"} <= set(self.action_stats):
            raise ValueError(f"action_stats has {sorted(self.action_stats)}: give at least 'mean' and 'std'.")


@strict
class DreamerWorldConfig(DreamerSharedConfigMixin, PreTrainedConfig):
    r"""
    Configuration of [`DreamerWorldModel`]: a tokenizer and a dynamics model that fit each other.

    Args:
        tokenizer_config (`DreamerTokenizerConfig` or `dict`, *optional*): The tokenizer.
        dynamics_config (`DreamerDynamicsConfig` or `dict`, *optional*): The dynamics model; its `num_latent_tokens`
            and `latent_dim` must be the tokenizer's.
    """

    model_type = "dreamer_world"
    sub_configs_defaults = {"tokenizer_config": DreamerTokenizerConfig, "dynamics_config": DreamerDynamicsConfig}

    tokenizer_config: dict | PreTrainedConfig | None = None
    dynamics_config: dict | PreTrainedConfig | None = None
    initializer_range: float | None = None

    def validate_architecture(self):
        """Checks that the two parts speak of the same latents.

        Raises:
            ValueError: the latents of the tokenizer and of the dynamics model differ in number or width.
        """
        for name in ("num_latent_tokens", "latent_dim"):
            ours, theirs = getattr(self.tokenizer_config, name), getattr(self.dynamics_config, name)
            if ours != theirs:
                raise ValueError(
                    f"the tokenizer has {name}={ours} but the dynamics model has {theirs}: "
                    "join a dynamics model with the tokenizer it was trained on."
                )


__all__ = ["DreamerDynamicsConfig", "DreamerTokenizerConfig", "DreamerTransformerConfig", "DreamerWorldConfig"]

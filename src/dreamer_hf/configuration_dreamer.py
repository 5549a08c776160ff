"""Configurations of the Dreamer 4 tokenizer, the dynamics model, and the world that joins them.

Source: arXiv 2509.24527, sections 3.1 (tokenizer), 3.2 (dynamics), 3.4 (transformer) and the appendix.
"""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_base import (
    LARGEST,
    DreamerConfigMixin,
    check_components,
    check_finite,
    check_integers,
    check_positive,
)
from .configuration_dreamer_transformer import DreamerTransformerConfig


@strict
class DreamerTokenizerConfig(DreamerTransformerConfig):
    r"""
    Configuration of [`DreamerTokenizerModel`], the causal tokenizer (section 3.1). The defaults are those of the
    published 400M tokenizers. The fields of [`DreamerTransformerConfig`] belong to it, too.

    Args:
        hidden_size (`int`, *optional*, defaults to 1024): Width D of a token.
        num_attention_heads (`int`, *optional*, defaults to 16): Number of query heads.
        image_size (`int` or `list[int]`, *optional*, defaults to 256): Side of a square frame in pixels, or `[height,
            width]`; a multiple of `patch_size`.
        patch_size (`int`, *optional*, defaults to 16): Side of a square patch in pixels.
        draft_patch_size (`int`, *optional*): Side in pixels of a patch that the decoder draws; `patch_size` by
            default. A smaller one gives a small draft of the frame, which is then enlarged linearly.
        refiner_channels (`int`, *optional*, defaults to 0): Width of the convolutions that sharpen the enlarged draft;
            0 for none (docs/decisions/0011).
        refiner_layers (`int`, *optional*, defaults to 4): Number of these convolutions, at least 2.
        num_channels (`int`, *optional*, defaults to 3): Number of color channels.
        num_encoder_layers (`int`, *optional*, defaults to 16): Number of layers of the encoder, a multiple of
            `time_every`.
        num_decoder_layers (`int`, *optional*, defaults to 16): Number of layers of the decoder, a multiple of
            `time_every`.
        num_latent_tokens (`int`, *optional*, defaults to 256): Number of latent tokens of a frame, N_z.
        latent_dim (`int`, *optional*, defaults to 32): Number of channels of a latent token, d_z; each lies in (-1,
            1).
        latent_group_size (`int`, *optional*, defaults to 1): Number of tokens of the bottleneck that make up one
            latent token, joined along its channels. In the paper, the Minecraft model has a bottleneck of 512 tokens
            of 16 channels, which become 256 latents of 32: 2.
        spatial_latents (`bool`, *optional*, defaults to `False`): Whether the tokens of the bottleneck stand for the
            cells of a grid over the frame, in rows from the top left. In the encoder each one then sees only the
            patches of its cell, and in the decoder a patch sees only the token of its cell; patches see one
            another either way. Not in the paper, where every token sees the whole frame: small tokenizers then learn
            small objects in minutes (docs/decisions/0003).
        num_whole_frame_tokens (`int`, *optional*, defaults to 0): With `spatial_latents`, number of tokens of the
            bottleneck, the last ones, that have no cell: they see the whole frame, and every patch of the decoder sees
            them in addition to the token of its cell. They hold together what spans cells. Not in the paper
            (docs/decisions/0010).
        patch_positions (`bool`, *optional*, defaults to `False`): Whether the encoder adds a learned vector of its
            row and one of its column to each patch. Attention alone tells a token what is in a patch, and where only
            relative to itself. Not in the paper (docs/decisions/0010).
        max_mask_ratio (`float`, *optional*, defaults to 0.9): In training, each frame draws the probability that a
            patch is masked from U(0, max_mask_ratio); 0 trains a plain autoencoder.
        image_mean (`list[float]`, *optional*, defaults to 0.5 for every channel): Pixels in [0, 1] enter the network
            as `(pixel - mean) / std` per channel, and leave it the inverse way.
        image_std (`list[float]`, *optional*, defaults to 0.5 for every channel): See `image_mean`.

    Example:

    ```python
    >>> from dreamer_hf import DreamerTokenizerConfig, DreamerTokenizerModel

    >>> # A tokenizer of 64 x 64 frames
    >>> config = DreamerTokenizerConfig(image_size=64, hidden_size=256, num_attention_heads=8, num_latent_tokens=16)

    >>> # A model with random weights
    >>> model = DreamerTokenizerModel(config)

    >>> # The config of a model
    >>> config = model.config
    ```
    """

    model_type = "dreamer_tokenizer"

    hidden_size: int = 1024
    num_attention_heads: int = 16
    image_size: int | list[int] | tuple[int, ...] = 256
    patch_size: int = 16
    draft_patch_size: int | None = None
    refiner_channels: int = 0
    refiner_layers: int = 4
    num_channels: int = 3
    num_encoder_layers: int = 16
    num_decoder_layers: int = 16
    num_latent_tokens: int = 256
    latent_dim: int = 32
    latent_group_size: int = 1
    spatial_latents: bool = False
    num_whole_frame_tokens: int = 0
    patch_positions: bool = False
    max_mask_ratio: float = 0.9
    image_mean: list[float | int] | None = None
    image_std: list[float | int] | None = None

    def __post_init__(self, **kwargs):
        self.image_mean = [0.5] * self.num_channels if self.image_mean is None else self.image_mean
        self.image_std = [0.5] * self.num_channels if self.image_std is None else self.image_std
        if not isinstance(self.image_size, int):  # every size is written in one way, so that sizes can be compared
            sides = list(self.image_size)
            self.image_size = sides[0] if len(set(sides)) == 1 and len(sides) == 2 else sides
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers of encoder and decoder together."""
        return self.num_encoder_layers + self.num_decoder_layers

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Number of rows and columns of patches of one frame."""
        height, width = self.frame_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Number of patches of one frame, N_p."""
        rows, columns = self.grid_size
        return rows * columns

    @property
    def drawn_patch_size(self) -> int:
        """Side in pixels of a patch that the decoder draws."""
        return self.patch_size if self.draft_patch_size is None else self.draft_patch_size

    @property
    def bottleneck_shape(self) -> tuple[int, int]:
        """Number of tokens of the bottleneck and of their channels: N_z d_z numbers per frame, as in the latents."""
        return self.num_latent_tokens * self.latent_group_size, self.latent_dim // self.latent_group_size

    @property
    def cell_size(self) -> int | None:
        """Patches along the side of the square cell of a token of the bottleneck; None if no cells fit."""
        (rows, columns), tokens = self.grid_size, self.bottleneck_shape[0] - self.num_whole_frame_tokens
        side = math.isqrt(self.num_patches // tokens)
        fits = tokens * side**2 == self.num_patches and rows % side == 0 and columns % side == 0
        return side if fits else None

    def validate_architecture(self):
        """Check also whole patches and groups, one statistic per channel, and the mask ratio; see the base class."""
        super().validate_architecture()
        self._check_layers("num_encoder_layers")
        self._check_layers("num_decoder_layers")
        largest = {"patch_size": 2**12, "num_channels": 64, "num_latent_tokens": 2**16, "latent_dim": 2**16}
        check_integers(self, largest | {"latent_group_size": 2**16, "drawn_patch_size": self.patch_size})
        check_integers(self, {"refiner_channels": 2**12}, smallest=0)
        check_integers(self, {"refiner_layers": 64}, smallest=2)
        if len(self.frame_size) != 2:
            raise ValueError(f"expected image_size to be one side or [height, width], got {self.image_size}.")
        if any(side < self.patch_size or side % self.patch_size for side in self.frame_size):
            raise ValueError(
                f"image_size={self.image_size} is not a whole number of patches: "
                f"choose a multiple of patch_size={self.patch_size}."
            )
        if self.num_patches > 2**16:
            raise ValueError(f"expected at most {2**16} patches, got {self.num_patches}: choose a larger patch_size.")
        if self.latent_dim % self.latent_group_size:
            raise ValueError(
                f"latent_dim={self.latent_dim} cannot be shared by latent_group_size={self.latent_group_size} tokens: "
                "choose a divisor."
            )
        check_integers(self, {"num_whole_frame_tokens": self.bottleneck_shape[0] - 1}, smallest=0)
        if self.num_whole_frame_tokens and not self.spatial_latents:
            raise ValueError(
                f"num_whole_frame_tokens={self.num_whole_frame_tokens} goes with spatial_latents: without them, all "
                "tokens see the whole frame."
            )
        if self.num_whole_frame_tokens % self.latent_group_size:
            raise ValueError(
                f"num_whole_frame_tokens={self.num_whole_frame_tokens} would share a latent with the token of a cell: "
                f"choose a multiple of latent_group_size={self.latent_group_size}."
            )
        if self.spatial_latents and self.cell_size is None:
            tokens, (rows, columns) = self.bottleneck_shape[0] - self.num_whole_frame_tokens, self.grid_size
            raise ValueError(
                f"num_latent_tokens={self.num_latent_tokens} gives a bottleneck of {tokens} tokens for cells, which "
                f"do not divide {rows} x {columns} patches into square cells: with spatial_latents, choose "
                f"{rows * columns} or a grid of whole cells."
            )
        if not 0 <= self.max_mask_ratio < 1:
            raise ValueError(f"expected max_mask_ratio to be at least 0 and below 1, got {self.max_mask_ratio}.")
        for name in ("image_mean", "image_std"):
            if len(getattr(self, name)) != self.num_channels:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values: give one for each of {self.num_channels} channels."
                )
        check_finite("image_mean", self.image_mean)
        check_positive("image_std", *self.image_std)


@strict
class DreamerDynamicsConfig(DreamerTransformerConfig):
    r"""
    Configuration of [`DreamerDynamicsModel`], the interactive dynamics model (section 3.2). The defaults are those of
    the published 110M PushT model. The fields of [`DreamerTransformerConfig`] belong to it, too.

    Args:
        hidden_size (`int`, *optional*, defaults to 768): Width D of a token.
        num_attention_heads (`int`, *optional*, defaults to 12): Number of query heads.
        num_hidden_layers (`int`, *optional*, defaults to 16): Number of layers, a multiple of `time_every`.
        num_latent_tokens (`int`, *optional*, defaults to 256): Number of latent tokens of a frame, N_z, as in the
            tokenizer; with several cameras, of all of them together.
        latent_dim (`int`, *optional*, defaults to 32): Number of channels of a latent token, d_z, as in the tokenizer.
        num_register_tokens (`int`, *optional*, defaults to 4): Number of learned extra tokens of a frame.
        num_action_tokens (`int`, *optional*, defaults to 1): Number of tokens that carry the action of a frame.
        action_dim (`int`, *optional*, defaults to 2): Width of a raw action vector.
        action_num_classes (`list[int]`, *optional*): For each action component, 0 if it is continuous, or the number
            of classes if it is categorical, which is 2 for a binary one (values 0, 1, ...). All components are
            continuous by default.
        num_signal_levels (`int`, *optional*, defaults to 128): Number of signal levels of the training grid, K_max; a
            power of two.
        prediction (`str`, *optional*, defaults to `"x"`): Output of the last projection: `"x"`, the clean latents (as
            in the paper), or `"v"`, the velocity `z - noise`, from which the model computes clean latents. `forward`
            returns clean latents either way.
        step_size_conditioning (`bool`, *optional*, defaults to `True`): Whether the step size is an input. False is
            for a model of plain flow matching, which has learned only the finest step and takes every step as such.
        action_offset (`int`, *optional*, defaults to 1): 1: the action of frame t is the command that led from frame
            t-1 to t. 0: it is the action recorded with frame t (the published checkpoints).
        action_stats (`dict[str, list[float]]`, *optional*): `mean`, `std`, `min` and `max` of every action component,
            in the data's units. Continuous components enter the network as `(action - mean) / std`; raw by default.
        action_names (`list[str]`, *optional*): Name of every action component.
        action_units (`list[str]`, *optional*): Unit of every action component, for people; `""` for none.
        relative_actions (`list[bool]`, *optional*): For each action component, True if it is a displacement, so that 0
            means no motion, or False if it is an absolute value. Unknown by default.
        fps (`float`, *optional*, defaults to 10.0): Frames per second of the data.
        state_dim (`int`, *optional*, defaults to 0): Number of components of the state that the model generates with
            every frame, such as the joint positions of a robot; 0 for none.
        num_state_tokens (`int`, *optional*, defaults to 1): Number of tokens that carry the state of a frame, if there
            is one.
        state_stats (`dict[str, list[float]]`, *optional*): `mean`, `std`, `min` and `max` of every component of the
            state, in the data's units. They enter and leave the network as `(state - mean) / std`; raw by default.
        state_names (`list[str]`, *optional*): Name of every component of the state.
        state_units (`list[str]`, *optional*): Unit of every component of the state, for people; `""` for none.
        camera_names (`list[str]`, *optional*): Name of every camera of a world with several; one camera by default.
            Each has an equal share of the latent tokens, in this order, and a learned embedding.

    Example:

    ```python
    >>> from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel

    >>> # A dynamics model for 16 latent tokens and actions of width 7
    >>> config = DreamerDynamicsConfig(num_latent_tokens=16, num_hidden_layers=8, action_dim=7)

    >>> # A model with random weights
    >>> model = DreamerDynamicsModel(config)

    >>> # The config of a model
    >>> config = model.config
    ```
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
    state_dim: int = 0
    num_state_tokens: int = 1
    state_stats: dict[str, list[float | int]] | None = None
    state_names: list[str] | None = None
    state_units: list[str] | None = None
    camera_names: list[str] | None = None

    def __post_init__(self, **kwargs):
        if self.fps is None or isinstance(self.fps, int):
            self.fps = float(10 if self.fps is None else self.fps)
        super().__post_init__(**kwargs)

    @property
    def continuous_action_indices(self) -> list[int]:
        """Positions of the continuous components in the action vector."""
        return [i for i, classes in enumerate(self._action_classes()) if classes == 0]

    @property
    def categorical_action_indices(self) -> list[int]:
        """Positions of the categorical and binary components in the action vector."""
        return [i for i, classes in enumerate(self._action_classes()) if classes > 0]

    @property
    def num_cameras(self) -> int:
        """Number of cameras, V."""
        return len(self.camera_names) if self.camera_names else 1

    @property
    def num_output_tokens(self) -> int:
        """Number of tokens of a frame that the model denoises: the latents, and the state if there is one."""
        return self.num_latent_tokens + (self.num_state_tokens if self.state_dim else 0)

    def _action_classes(self) -> list[int]:
        return self.action_num_classes if self.action_num_classes is not None else [0] * self.action_dim

    def validate_architecture(self):
        """Check also whole groups, the grid of powers of two, and the action fields; see the base class."""
        super().validate_architecture()
        self._check_layers("num_hidden_layers")
        check_integers(self, {"num_latent_tokens": 2**16, "latent_dim": 2**16, "num_signal_levels": 2**20})
        check_integers(self, {"num_register_tokens": 2**12, "state_dim": 2**12}, smallest=0)
        levels = self.num_signal_levels
        if levels < 2 or levels & (levels - 1):
            raise ValueError(f"expected num_signal_levels to be a power of two such as 128, got {levels}.")
        if self.prediction not in ("x", "v"):
            raise ValueError(
                f"expected prediction to be 'x' (clean latents) or 'v' (velocity), got {self.prediction!r}."
            )
        if self.action_offset not in (0, 1):
            raise ValueError(
                f"expected action_offset to be 1 (the command before a frame) or 0 (recorded with it), got "
                f"{self.action_offset}."
            )
        check_integers(self, {"num_action_tokens": 2**12, "action_dim": 2**12, "num_state_tokens": 2**12})
        check_positive("fps", self.fps)
        lists = ["action_names", "action_units", "action_num_classes", "relative_actions"]
        check_components(self, "action_dim", lists, "action_stats")
        check_components(self, "state_dim", ["state_names", "state_units"], "state_stats")
        if len(set(self.camera_names or ())) < len(self.camera_names or ()):
            raise ValueError(f"expected a different name for each camera, got {self.camera_names}.")
        if self.num_latent_tokens % self.num_cameras:
            raise ValueError(
                f"num_latent_tokens={self.num_latent_tokens} cannot be shared by {self.num_cameras} cameras: choose a "
                "multiple of their number."
            )
        if any(classes < 0 or classes == 1 or classes > 2**16 for classes in self._action_classes()):
            raise ValueError(
                "expected action_num_classes to be 0 (continuous) or "
                f"from 2 to {2**16}, got {self.action_num_classes}."
            )


@strict
class DreamerWorldConfig(DreamerConfigMixin, PreTrainedConfig):
    r"""
    Configuration of [`DreamerWorldModel`]: a tokenizer and a dynamics model of the same latents.

    Args:
        tokenizer_config (`DreamerTokenizerConfig` or `dict`, *optional*): Config of the tokenizer; one of the defaults
            by default.
        dynamics_config (`DreamerDynamicsConfig` or `dict`, *optional*): Config of the dynamics model, whose
            `num_latent_tokens` and `latent_dim` must be the tokenizer's; one of the defaults by default.

    Example:

    ```python
    >>> from dreamer_hf import DreamerWorldConfig, DreamerWorldModel

    >>> # A world of 64 x 64 frames, given by what differs from the defaults
    >>> config = DreamerWorldConfig(
    ...     tokenizer_config={"image_size": 64, "num_latent_tokens": 16},
    ...     dynamics_config={"action_dim": 7, "num_latent_tokens": 16},
    ... )

    >>> # A world with random weights
    >>> world = DreamerWorldModel(config)
    ```
    """

    model_type = "dreamer_world"
    sub_configs_defaults = {"tokenizer_config": DreamerTokenizerConfig, "dynamics_config": DreamerDynamicsConfig}

    tokenizer_config: dict | PreTrainedConfig | None = None
    dynamics_config: dict | PreTrainedConfig | None = None
    initializer_range: float | None = None

    def validate_architecture(self):
        """Check that the two parts have the same latents.

        Raises:
            ValueError: if the latents of the tokenizer and of the dynamics model differ in number or width.
        """
        if self.initializer_range is not None and not 0 <= self.initializer_range < LARGEST:
            raise ValueError(f"expected initializer_range to be at least 0, got {self.initializer_range}.")
        for name, kind in {
            "tokenizer_config": DreamerTokenizerConfig,
            "dynamics_config": DreamerDynamicsConfig,
        }.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(
                    f"expected {name} to be a {kind.__name__}, got a {type(getattr(self, name)).__name__}."
                )
        cameras = {"num_latent_tokens": self.dynamics_config.num_cameras, "latent_dim": 1}
        for name, factor in cameras.items():
            ours, theirs = factor * getattr(self.tokenizer_config, name), getattr(self.dynamics_config, name)
            if ours != theirs:
                raise ValueError(
                    f"the tokenizer has {name}={ours}{_for(factor)} but the dynamics model has {theirs}: "
                    "join a dynamics model with the tokenizer that it was trained on."
                )


def _for(num_cameras: int) -> str:
    return "" if num_cameras == 1 else f" for {num_cameras} cameras"


__all__ = ["DreamerDynamicsConfig", "DreamerTokenizerConfig", "DreamerTransformerConfig", "DreamerWorldConfig"]

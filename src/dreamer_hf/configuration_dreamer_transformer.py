"""Configuration of the space-time transformer that the tokenizer and the dynamics model share.

Source: arXiv 2509.24527, section 3.4 and the appendix.
"""

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_base import (
    LARGEST,
    DreamerConfigMixin,
    check_integers,
    check_positive,
)


@strict
class DreamerTransformerConfig(DreamerConfigMixin, PreTrainedConfig):
    r"""
    Fields that the tokenizer and the dynamics model share: one space-time transformer (section 3.4).

    Layers come in groups of `time_every`: the last layer of a group attends over time (causal, within the last
    `context_length` frames), the others attend over the tokens of one frame.

    Args:
        hidden_size (`int`, *optional*, defaults to 512): Width D of a token.
        intermediate_size (`int`, *optional*, defaults to `floor(8 * hidden_size / 3)`): Width of the SwiGLU layer.
        num_attention_heads (`int`, *optional*, defaults to 8): Number of query heads; `hidden_size` must be a multiple
            of it, with an even quotient (RoPE).
        num_key_value_heads (`int`, *optional*, defaults to `num_attention_heads`): Number of key-value heads
            (grouped-query attention); a divisor of the number of query heads.
        context_length (`int`, *optional*, defaults to 32): Number of frames that a time layer sees, including the
            current one.
        time_every (`int`, *optional*, defaults to 4): Number of layers in a group, whose last one is the time layer;
            at least 2.
        rms_norm_eps (`float`, *optional*, defaults to 1.1920929e-07): Epsilon of RMSNorm. The default is float32's
            machine epsilon, as in the published checkpoints.
        rope_parameters (`dict`, *optional*, defaults to `{"rope_type": "default", "rope_theta": 10000.0}`): Base of
            the rotary position embedding, in space and in time; `"default"` is the only supported type. A `rope_theta`
            given by itself, as in configs saved before version 0.2.0, goes in here.
        qk_norm (`bool`, *optional*, defaults to `False`): Whether to L2-normalize queries and keys per head, with one
            learned scale per query head.
        attn_logit_softcapping (`float`, *optional*): Cap of the attention logits, `cap * tanh(logits / cap)`; not
            capped by default. Such a model runs in `eager` attention, because SDPA cannot cap logits.
        initializer_range (`float`, *optional*): Standard deviation of new linear weights; `1 / sqrt(fan_in)` by
            default. Residual outputs and the last projection start at zero either way (docs/decisions/0001).
    """

    hidden_size: int = 512
    intermediate_size: int | None = None
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    context_length: int = 32
    time_every: int = 4
    rms_norm_eps: float = 1.1920929e-07
    rope_parameters: dict | None = None
    qk_norm: bool = False
    attn_logit_softcapping: float | int | None = None
    initializer_range: float | int | None = None

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
        """Check sizes, positive numbers, and what one field alone cannot tell.

        Raises:
            ValueError: if no model can have these values; the sentence says what would be valid.
        """
        check_integers(self, {"hidden_size": 2**16, "intermediate_size": 2**18, "context_length": 2**16})
        check_integers(self, {"num_attention_heads": 1024, "num_key_value_heads": 1024})
        check_integers(self, {"time_every": 1024}, smallest=2)
        check_positive("rms_norm_eps", self.rms_norm_eps)
        check_positive("attn_logit_softcapping", self.attn_logit_softcapping)
        if self.initializer_range is not None and not 0 <= self.initializer_range < LARGEST:
            raise ValueError(f"expected initializer_range to be at least 0, got {self.initializer_range}.")
        self._check_rope()
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} and num_attention_heads={self.num_attention_heads} do not give heads "
                "of an even width: choose hidden_size as a multiple of twice the number of heads."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} cannot share "
                f"num_key_value_heads={self.num_key_value_heads}: choose a divisor of the number of heads."
            )

    def _check_rope(self) -> None:
        parameters = self.rope_parameters
        if set(parameters) != {"rope_type", "rope_theta"} or parameters["rope_type"] != "default":
            raise ValueError(
                f"expected rope_parameters to be {{'rope_type': 'default', 'rope_theta': a number}}, got {parameters}."
            )
        if not isinstance(parameters["rope_theta"], (int, float)):
            raise ValueError(f"expected rope_theta to be a number, got {parameters['rope_theta']!r}.")
        check_positive("rope_theta", parameters["rope_theta"])

    def _check_layers(self, field: str) -> None:
        check_integers(self, {field: 1024})
        if getattr(self, field) % self.time_every:
            raise ValueError(
                f"{field}={getattr(self, field)} is not a whole number of groups: "
                f"choose a multiple of time_every={self.time_every}."
            )


__all__ = ["DreamerTransformerConfig"]

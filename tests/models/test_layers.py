"""Single parts of the space-time transformer."""

import pytest
import torch
from torch.nn import functional as F

from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel, DreamerTokenizerConfig, DreamerTokenizerModel
from dreamer_hf.modeling_layers import padded_linear
from tiny import randn


@pytest.mark.parametrize("inputs", [16, 21])
@pytest.mark.parametrize("outputs", [8, 13])
def test_a_padded_product_is_the_same_product(inputs, outputs):
    states, weight = randn(2, 3, inputs, seed=1).requires_grad_(), randn(outputs, inputs, seed=2).requires_grad_()
    result, expected = padded_linear(states, weight, multiple=8), F.linear(states, weight)
    torch.testing.assert_close(result, expected)
    gradients = (torch.autograd.grad(product.square().sum(), [states, weight]) for product in (result, expected))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_new_transformers_pass_their_input_on(qk_norm):
    """Every layer adds nothing at first (docs/decisions/0001)."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "time_every": 2, "num_latent_tokens": 4, "latent_dim": 4}
    sizes |= {"qk_norm": qk_norm}
    tokenizer = DreamerTokenizerModel(DreamerTokenizerConfig(**sizes, num_encoder_layers=2, num_decoder_layers=2))
    dynamics = DreamerDynamicsModel(DreamerDynamicsConfig(**sizes, num_hidden_layers=2))
    for transformer in (tokenizer.encoder.transformer, tokenizer.decoder.transformer, dynamics.transformer):
        projections = [layer.self_attn.o_proj for layer in transformer.layers]
        projections += [layer.mlp.down_proj for layer in transformer.layers]
        assert not any(projection.weight.any() for projection in projections)
        assert all(layer.mlp.gate_up_proj.weight.any() for layer in transformer.layers)

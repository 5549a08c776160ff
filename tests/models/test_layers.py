"""Single parts of the space-time transformer."""

import pytest
import torch
from torch.nn import functional as F

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

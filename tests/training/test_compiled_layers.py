"""Layers compiled for training: the same losses and gradients, from code that layers share."""

import copy

import pytest
import torch
from peft import LoraConfig
from torch._dynamo.utils import counters

from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel
from dreamer_hf.losses import FrameConditions, sample_training_row, shortcut_forcing_loss
from dreamer_hf.training.optimizers import compile_layers
from tiny import loss_curve, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_a_code_generator")]


def tiny_model(num_layers: int) -> DreamerDynamicsModel:
    torch.manual_seed(0)
    values = {"hidden_size": 16, "num_attention_heads": 2, "num_latent_tokens": 3, "latent_dim": 4, "time_every": 2}
    config = DreamerDynamicsConfig(num_hidden_layers=num_layers, num_signal_levels=8, context_length=4, **values)
    model = DreamerDynamicsModel(config)
    for parameter in model.parameters():  # what starts at zero would hide the layers
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(model):
    """Of a batch with one bootstrap row: two of the three passes see it alone."""
    generator = torch.Generator().manual_seed(1)
    rows = [sample_training_row(6, 8, bootstrap, generator, "cpu") for bootstrap in (True, False, False)]
    levels, steps = (torch.stack(column) for column in zip(*rows))
    latents, noise = (torch.randn(3, 6, 3, 4, generator=generator) for _ in range(2))
    model.zero_grad()
    loss = shortcut_forcing_loss(model, latents, noise, FrameConditions(levels, steps, torch.ones(3, 6, 2))).loss
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("form", ["plain", "gradient checkpointing", "adapter"])
def test_losses_and_gradients_are_the_same(form):
    model = tiny_model(num_layers=2)
    if form == "gradient checkpointing":
        model.activation_checkpointing_enable()
    elif form == "adapter":
        model.add_adapter(LoraConfig(r=2, target_modules=["qkv_proj", "gate_up_proj", "down_proj"]))
    compiled = copy.deepcopy(model)
    compile_layers(compiled)
    torch.testing.assert_close(loss_and_gradients(compiled), loss_and_gradients(model))
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]


def test_more_layers_need_no_more_code():
    counts = []
    for num_layers in (4, 8):
        torch._dynamo.reset()
        counters.clear()
        model = tiny_model(num_layers)
        compile_layers(model)
        loss_and_gradients(model)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[0] == counts[1] > 0


def test_a_compiled_run_has_the_losses_of_another(tmp_path, data_dir, configs, tokenizer_run, dynamics_run):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run]
    train("dynamics", *argv, "--output_dir", tmp_path / "run", "--torch_compile", True)
    assert counters["stats"]["unique_graphs"] > 0
    ours, theirs = loss_curve(tmp_path / "run"), loss_curve(dynamics_run)
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-4)

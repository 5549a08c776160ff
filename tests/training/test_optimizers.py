import pytest
import torch

from dreamer_hf.configuration_dreamer import DreamerTokenizerConfig
from dreamer_hf.modeling_dreamer_tokenizer import DreamerTokenizerModel
from dreamer_hf.training.arguments import OptimizerArguments
from dreamer_hf.training.optimizers import (
    BatchedMuon,
    averaged_model,
    build_optimizers,
    learning_rate_factor,
    orthogonalized,
    set_learning_rate,
)


@pytest.fixture
def model() -> DreamerTokenizerModel:
    return DreamerTokenizerModel(
        DreamerTokenizerConfig(
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_attention_heads=2,
            num_encoder_layers=4,
            num_decoder_layers=4,
            num_latent_tokens=2,
            latent_dim=4,
        )
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer(model, optimizer):
    optimizers = build_optimizers(model, OptimizerArguments(optimizer=optimizer))
    owned = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in model.parameters()}


def test_muon_takes_the_matrices_of_the_layers_only(model):
    adamw, muon = build_optimizers(model, OptimizerArguments(optimizer="muon"))
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert len(taken) == 4 * 8  # qkv, o, gate-up and down of eight layers
    assert all(".layers." in name and name.endswith("proj.weight") for name in taken)
    for group in adamw.param_groups:
        assert len({p.ndim >= 2 for p in group["params"]}) == 1, "matrices and the rest are apart"
        assert (group["weight_decay"] > 0) == (group["params"][0].ndim >= 2)


def test_learning_rate_warms_up_and_anneals():
    def factor(step, total=1000):
        return learning_rate_factor(step, step / total, warmup_steps=100, final_ratio=0.1)

    assert factor(0) == pytest.approx(0.01, rel=0.01)
    assert factor(99) == pytest.approx(1.0, rel=0.03)
    assert factor(500) == pytest.approx(0.55, rel=0.01)
    assert factor(1000) == pytest.approx(0.1)
    assert all(factor(s) >= factor(s + 1) for s in range(100, 1000))
    assert learning_rate_factor(0, 0.0, warmup_steps=0, final_ratio=0.0) == 1.0


def test_each_optimizer_gets_its_own_peak(model):
    arguments = OptimizerArguments(optimizer="muon", learning_rate=0.1, muon_learning_rate=0.2)
    optimizers = build_optimizers(model, arguments)
    set_learning_rate(optimizers, arguments, 0.5)
    rates = [{group["lr"] for group in optimizer.param_groups} for optimizer in optimizers]
    assert rates == [{0.05}, {0.1}]


def test_projections_of_the_latents_learn_at_their_own_rate(model):
    arguments = OptimizerArguments(learning_rate=0.1, latent_learning_rate_ratio=0.1)
    optimizers = build_optimizers(model, arguments)
    set_learning_rate(optimizers, arguments, 0.5)
    rate = {
        id(p): group["lr"] for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
    }
    slow = {name for name, p in model.named_parameters() if rate[id(p)] == pytest.approx(0.005)}
    assert slow == {
        "encoder.latent_tokens",
        *(f"{side}.{part}" for side in ("encoder.latent_proj", "decoder.latent_embed") for part in ("weight", "bias")),
    }
    assert {round(value, 6) for value in rate.values()} == {0.05, 0.005}


def test_averaged_weights_follow_the_model_and_forget_its_start():
    model = torch.nn.Linear(1, 1, bias=False)
    average = averaged_model(model, decay=0.9)
    expected = None
    for count in range(30):
        with torch.no_grad():
            model.weight.fill_(float(count))
        average.update_parameters(model)
        decay = min(0.9, (1 + count) / (10 + count))
        expected = float(count) if expected is None else decay * expected + (1 - decay) * count
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert abs(average.module.weight.item() - 29) < 10


SHAPES = [(24, 16), (16, 24), (24, 16), (16, 16), (24, 16)]


def test_batched_muon_steps_as_pytorchs_does():
    """Up to bfloat16, in which PyTorch iterates; the state of one is that of the other."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.1, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    batched, plain = BatchedMuon(ours, **options), torch.optim.Muon(theirs, **options)
    start = [p.detach().clone() for p in ours]
    for _ in range(3):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        batched.step()
        plain.step()
        for p, q, s in zip(ours, theirs, start):
            assert (p - q).norm() < 0.03 * (q - s).norm()
    assert batched.state_dict()["param_groups"] == plain.state_dict()["param_groups"]
    batched.load_state_dict(plain.state_dict())
    for p, q in zip(ours, theirs):
        torch.testing.assert_close(batched.state[p]["momentum_buffer"], plain.state[q]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(3, 24, 16), (3, 16, 40)])
def test_orthogonalizing_maps_singular_values_and_keeps_their_vectors(shape):
    matrices, (a, b, c) = torch.randn(shape, dtype=torch.float64), (3.4445, -4.775, 2.0315)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = values / values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    expected = left @ values.diag_embed() @ right
    torch.testing.assert_close(orthogonalized(matrices, (a, b, c), 5, 1e-7).double(), expected, atol=1e-4, rtol=1e-4)


def test_large_matrices_are_not_stacked_without_end(monkeypatch):
    """Steps in small batches are those of one large one."""
    results = []
    for limit in (2**24, 400):
        monkeypatch.setattr("dreamer_hf.training.optimizers.BATCH_ELEMENTS", limit)
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(16, 24)) for _ in range(3)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        BatchedMuon(parameters).step()
        results.append(torch.stack(parameters))
    torch.testing.assert_close(*results)

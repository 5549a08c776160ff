"""Compiled rollouts generate the same frames, in the smallest world with every kind of pass: compiling is slow."""

import pytest
import torch

from dreamer_hf.compile_rollout import CPU_CODE, compile_pass, decoder_pass, warm_up
from tiny import rand, randn, shake, tiny_tokenizer, tiny_world

pytestmark = pytest.mark.slow


def smallest_world():
    """One layer over space and one over time in each stack: compiling goes by the number of layers."""
    return tiny_world({"num_decoder_layers": 2, "time_every": 2}, {"num_hidden_layers": 2, "time_every": 2})


def num_graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture(scope="module")
def rollouts():
    """The same dream twice: eager and compiled."""
    graphs_before = num_graphs()
    world = smallest_world()
    start = {"context_noise": randn(2, 2, 3, 5), "num_inference_steps": 2}
    plain = world.start_rollout(rand(2, 2, 3, 16, 16), **start)
    compiled = plain.clone()
    compiled.compile()
    assert num_graphs() - graphs_before == 3, "a pass over one frame, one over two, and the decoder"
    return plain, compiled


def steps(rollout, count, seed=0):
    outputs = []
    for number in range(seed, seed + count):
        action, *noise = randn(2, 2, seed=number), randn(2, 3, 5, seed=50 + number), randn(2, 3, 5, seed=90 + number)
        outputs.append(rollout.step(action, start_noise=noise[0], commit_noise=noise[1]))
    return torch.stack([output.latents for output in outputs]), outputs[-1].pixel_values


def assert_same_dream(first, second):
    for ours, theirs in zip(first, second):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_compiled_equals_eager_and_stays_so_without_compiling_again(rollouts):
    plain, compiled = rollouts
    graphs = num_graphs()
    assert_same_dream(steps(compiled, 6), steps(plain, 6))
    branches = compiled.clone(), plain.clone()
    assert_same_dream(*(steps(branch, 3, seed=20) for branch in branches))
    noise = randn(1, 2, 3, 5, seed=7)
    for rollout in rollouts:
        rollout.reset(rand(1, 2, 3, 16, 16, seed=3), rows=[1], context_noise=noise)
    assert_same_dream(steps(compiled, 3, seed=30), steps(plain, 3, seed=30))
    for rollout in rollouts:
        rollout.reset(context_noise=randn(2, 2, 3, 5, seed=8))
    assert_same_dream(steps(compiled, 3, seed=40), steps(plain, 3, seed=40))
    assert num_graphs() == graphs


@pytest.mark.parametrize(("failing", "call"), [("dynamics", 0), ("dynamics", 1), ("decoder", 0)])
def test_a_failed_step_can_be_repeated(rollouts, failing, call):
    """The pass fails after it has moved its cache."""
    failed = rollouts[1].clone()
    steps(failed, 2)
    undisturbed = failed.clone()
    owner, name = (failed.latent_rollout, "_dynamics_pass") if failing == "dynamics" else (failed, "_decoder_pass")
    run, calls = getattr(owner, name), []

    def fail(*arguments):
        output = run(*arguments)
        calls.append(None)
        if len(calls) == call + 1:
            raise RuntimeError("injected")
        return output

    setattr(owner, name, fail)
    with pytest.raises(RuntimeError, match="injected"):
        steps(failed, 1, seed=60)
    setattr(owner, name, run)
    for ours, theirs in zip(steps(failed, 4, seed=60), steps(undisturbed, 4, seed=60)):
        assert torch.equal(ours, theirs)


def test_warm_up_leaves_the_dream_and_its_noise_alone(rollouts):
    """Nothing is compiled here again: the same model, shapes and passes."""
    plain, _ = rollouts
    given, untouched = plain.clone(), plain.clone()
    state = torch.get_rng_state()
    given.compile()
    assert torch.equal(torch.get_rng_state(), state)
    assert given.frame_index == untouched.frame_index
    assert_same_dream(steps(given, 2), steps(untouched, 2))


def decode(form, model):
    return form(model, randn(1, 1, 3, 5), model.new_decoder_cache(1))


def compiled_for(model):
    """The compiled decoder, after it gave what the plain one gives."""
    compiled = compile_pass(decoder_pass, model)
    warm_up(lambda: decode(compiled, model), ["decoder"], model.device)
    torch.testing.assert_close(decode(compiled, model), decode(decoder_pass, model), atol=1e-4, rtol=1e-4)
    return compiled


SMALLEST = {"num_encoder_layers": 2, "num_decoder_layers": 2, "time_every": 2}


@torch.no_grad()
def test_products_without_a_generated_form_are_left_to_the_libraries():
    """Eager attention multiplies activations."""
    model = tiny_tokenizer(**SMALLEST)
    model.set_attn_implementation("eager")
    compiled_for(model)


@pytest.fixture
def quick_code(monkeypatch):
    """Leave out the settings that only make code faster: they take most of the time of compiling."""
    for name in ("max_autotune", "cpp_wrapper"):
        monkeypatch.delitem(CPU_CODE, name)


@torch.no_grad()
def test_other_models_and_changed_weights_get_separate_code(quick_code):
    """Weights are frozen into the code, and hardly anything is checked before a call."""
    first, second = tiny_tokenizer(**SMALLEST), tiny_tokenizer(**SMALLEST)
    shake(second, seed=3)
    compiled, before = compiled_for(first), decode(decoder_pass, first)
    assert compile_pass(decoder_pass, first) is compiled
    assert compiled_for(second) is not compiled
    torch.testing.assert_close(decode(compiled, first), before, atol=1e-4, rtol=1e-4)
    shake(first, seed=4)
    changed = compiled_for(first)
    assert changed is not compiled
    assert not torch.allclose(decode(decoder_pass, first), before, atol=0.01)
    first.decoder.some_setting = True
    assert compile_pass(decoder_pass, first) is not changed

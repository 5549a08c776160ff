"""What only a GPU has: CUDA graphs, steps that never wait for it, its attention kernels. Skipped without one."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamer_hf import SeededNoise
from dreamer_hf.imagination import imagine
from dreamer_hf.losses import FrameConditions, sample_training_row, shortcut_forcing_loss
from dreamer_hf.training.optimizers import compile_layers
from tiny import rand, randn, tiny_agent, tiny_dynamics, tiny_tokenizer, tiny_world

pytestmark = pytest.mark.gpu

WIDE = {"hidden_size": 64}
"""Heads of 16 channels, the smallest width for GPU kernels."""
SMALL = (
    {"num_encoder_layers": 2, "num_decoder_layers": 2, "time_every": 2} | WIDE,
    {"num_hidden_layers": 4, "time_every": 2} | WIDE,
)


@pytest.fixture(autouse=True)
def exact_products():
    """Compute float32 products without shorter mantissas."""
    torch.set_float32_matmul_precision("highest")


def start(world, **options):
    """Start two rows, the same ones on every device."""
    return world.start_rollout(rand(2, 2, 3, 16, 16), context_noise=randn(2, 2, 3, 5), **options)


def dream(rollout, count, seed=0):
    """Return frames (count,2,3,16,16), on the CPU, from given noise."""
    frames = []
    for number in range(seed, seed + count):
        action, first, second = (randn(2, *shape, seed=number) for shape in ((2,), (3, 5), (3, 5)))
        frames.append(rollout.step(action, start_noise=first, commit_noise=second).pixel_values.float().cpu())
    return torch.stack(frames)


def assert_close(first, second):
    """Compare loosely: a GPU sums in another order, and a rollout continues from its own frames."""
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def rollouts():
    """The same rollout on the CPU, and compiled on the GPU."""
    compiled = start(tiny_world(*SMALL).cuda())
    compiled.compile()
    return start(tiny_world(*SMALL)), compiled


def test_cuda_graphs_give_the_frames_of_a_cpu(rollouts):
    on_cpu, compiled = rollouts
    assert_close(dream(compiled, 8), dream(on_cpu, 8))
    clones = [rollout.clone() for rollout in rollouts]
    assert_close(*(dream(clone, 4, seed=20) for clone in clones))
    for rollout in rollouts:
        frames, noise = rand(1, 2, 3, 16, 16, seed=3), randn(1, 2, 3, 5, seed=7)
        rollout.reset(frames, rows=[1], context_noise=noise)
    assert_close(dream(compiled, 4, seed=30), dream(on_cpu, 4, seed=30))
    for rollout in rollouts:
        rollout.reset(context_noise=randn(2, 2, 3, 5, seed=8))
    assert_close(dream(compiled, 4, seed=40), dream(on_cpu, 4, seed=40))


def test_clones_do_not_share_memory_with_a_graph(rollouts):
    """A graph writes where it was recorded: the step of another rollout must not change this one."""
    _, compiled = rollouts
    first, second, alone = (compiled.clone() for _ in range(3))
    frames = []
    for number in range(4):
        frames.append(dream(first, 1, seed=60 + number))
        dream(second, 1, seed=80 + number)
    assert_close(torch.cat(frames), dream(alone, 4, seed=60))


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_a_step_never_waits_for_the_gpu(rollouts, form):
    rollout = start(tiny_world(*SMALL).cuda()) if form == "plain" else rollouts[1].clone()
    actions = randn(2, 2).cuda()
    rollout.step(actions)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            rollout.step(actions)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bfloat16_rollouts_are_close_to_float32():
    world = tiny_world(*SMALL).cuda()
    exact = dream(start(world), 6)
    close = start(world.to(torch.bfloat16))
    close.compile()
    assert (dream(close, 6) - exact).square().mean().sqrt() < 0.1 * exact.std()


@torch.no_grad()
def run(model):
    """Return the output for two videos of five frames."""
    if model.config.model_type == "dreamer_tokenizer":
        return model(rand(2, 5, 3, 16, 16).cuda())[0].float()
    ids = torch.zeros(2, 5, dtype=torch.int64, device="cuda")
    return model(randn(2, 5, 3, 5).cuda(), ids, ids, randn(2, 5, 2).cuda())[0].float()


@pytest.mark.parametrize("make_model", [tiny_tokenizer, tiny_dynamics])
def test_masks_suit_the_fast_attention_kernels(make_model):
    """With the slow kernel disabled, an unsuitable mask is an error."""
    model = make_model(**WIDE).cuda().to(torch.bfloat16)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        run(model)


def training_loss(model, device):
    generator = torch.Generator().manual_seed(0)
    draws = [sample_training_row(6, 16, is_bootstrap, generator, "cpu") for is_bootstrap in (True, False, False)]
    levels, steps = (torch.stack(column).to(device) for column in zip(*draws))
    mask = torch.ones(3, 6, dtype=torch.bool, device=device)
    latents, noise, actions = (
        randn(3, 6, *shape, seed=seed).to(device) for seed, shape in enumerate([(3, 5), (3, 5), (2,)])
    )
    return shortcut_forcing_loss(model.train(), latents, noise, FrameConditions(levels, steps, actions, mask)).loss


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_training_gives_the_gradients_of_a_cpu(form):
    on_cpu, on_gpu = tiny_dynamics(**SMALL[1]), tiny_dynamics(**SMALL[1]).cuda()
    if form == "compiled":
        compile_layers(on_gpu)
    losses = [training_loss(model, model.device) for model in (on_cpu, on_gpu)]
    for loss in losses:
        loss.backward()
    assert_close(losses[1].cpu(), losses[0])
    gradients = dict(on_gpu.named_parameters())
    for name, parameter in on_cpu.named_parameters():
        assert_close(gradients[name].grad.cpu(), parameter.grad)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_agents_imagine_on_a_gpu_what_they_imagine_on_a_cpu(is_compiled):
    context, actions = randn(2, 3, 3, 5), 10 * rand(2, 3, 2)
    known = []
    for device in ("cpu", "cuda"):
        episode = (
            tiny_agent(*SMALL)
            .to(device)
            .start_from_latents(context, actions, generator=[SeededNoise(1), SeededNoise(2)])
        )
        if is_compiled and device == "cuda":
            episode.compile()
        known.append(imagine(episode, 4).agent_states.cpu())
    assert_close(*known)

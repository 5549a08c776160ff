"""A rollout is a transaction: what fails or is refused leaves it unchanged, its noise included."""

import contextlib

import pytest
import torch

from dreamer_hf import DreamerRollout
from tiny import rand, randn, tiny_world

FRAMES = rand(2, 4, 3, 16, 16)
ACTIONS = randn(2, 20, 2)


class InjectedError(Exception):
    pass


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    return tiny_world({}, {"num_hidden_layers": 4})


GENERATORS = {"one per row": lambda: [seeded(3), seeded(4)], "global": lambda: None}


@pytest.fixture(params=GENERATORS)
def rollouts(world, request):
    """Two rollouts of the same dream; those of the global generator draw from it one after the other."""
    torch.manual_seed(9)
    first = world.start_rollout(FRAMES, generator=GENERATORS[request.param]())
    torch.manual_seed(9)
    return first, world.start_rollout(FRAMES, generator=GENERATORS[request.param]())


def dream(rollout, first, count):
    """Latents and pixels of some steps; the global generator starts at the same seed."""
    if rollout.latent_rollout.generator is None:
        torch.manual_seed(first)
    outputs = [rollout.step(ACTIONS[:, first + i]) for i in range(count)]
    return [torch.stack([getattr(output, name) for output in outputs]) for name in ("latents", "pixel_values")]


def assert_same(first, second):
    assert all(torch.equal(*pair) for pair in zip(first, second))


def noise_state(rollout):
    generators = rollout.latent_rollout.generator or torch.default_generator
    return [each.get_state() for each in (generators if isinstance(generators, list) else [generators])]


@contextlib.contextmanager
def failing(module, call, error=InjectedError):
    """Let a module fail in its call of this number (0: the next), after it has computed its output."""
    calls = []

    def hook(*_):
        calls.append(None)
        if len(calls) == call + 1:
            raise error

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def unchanged(rollout, message=None):
    """Expect an error, and that neither the noise nor the position changes."""
    before, position = noise_state(rollout), (rollout.frame_index, rollout.batch_size)
    with pytest.raises((InjectedError, KeyboardInterrupt, ValueError), match=message):
        yield
    assert (rollout.frame_index, rollout.batch_size) == position
    assert all(torch.equal(*pair) for pair in zip(before, noise_state(rollout)))


# The transformer commits before the head runs, so a failing head has moved the cache already.
PLACES = {
    "first pass, in a layer": (lambda world: world.dynamics.transformer.layers[3], 0),
    "first pass, after the commit": (lambda world: world.dynamics.latent_head, 0),
    "second pass": (lambda world: world.dynamics.latent_head, 1),
    "last pass": (lambda world: world.dynamics.latent_head, 3),
    "decoder, in a layer": (lambda world: world.tokenizer.decoder.transformer.layers[0], 0),
    "decoder, after the commit": (lambda world: world.tokenizer.decoder, 0),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("steps_before", "merge_commit"), [(0, True), (5, True), (5, False)])
def test_a_failed_step_can_be_repeated(world, rollouts, place, steps_before, merge_commit):
    module, call = PLACES[place]
    for rollout in rollouts:
        rollout.latent_rollout.merge_commit = merge_commit
    failed, _ = rollouts
    if steps_before:
        assert_same(*(dream(rollout, 0, steps_before) for rollout in rollouts))
    for error in (InjectedError, KeyboardInterrupt):
        with failing(module(world), call, error), unchanged(failed):
            failed.step(ACTIONS[:, steps_before])
    assert_same(*(dream(rollout, steps_before, 6) for rollout in rollouts))


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(2, 3),),
        (torch.full((2, 2), torch.nan),),
        ([[0.0], [1.0, 2.0]],),
        ("up",),
        (ACTIONS[:, 0], [True]),
        (ACTIONS[:, 0], None, torch.zeros(2, 3)),
        (ACTIONS[:, 0], None, None, torch.zeros(3, 5)),
    ],
    ids=["width", "NaN", "ragged", "text", "mask", "start noise", "commit noise"],
)
def test_a_refused_step_draws_no_noise(rollouts, arguments):
    refused, _ = rollouts
    for start in (0, 3):
        with unchanged(refused):
            refused.step(*arguments)
        assert_same(*(dream(rollout, start, 3) for rollout in rollouts))


RESTARTS = {
    "all rows": {"pixel_values_videos": rand(2, 9, 3, 16, 16, seed=1)},
    "first context": {},
    "one row": {"pixel_values_videos": rand(1, 2, 3, 16, 16, seed=1), "rows": [1]},
    "one row, first context": {"rows": [0]},
}
RESTART_PLACES = {
    "encoder": lambda world: world.tokenizer.encoder,
    "decoder": lambda world: world.tokenizer.decoder,
    "dynamics": lambda world: world.dynamics.latent_head,
}


@pytest.mark.parametrize(
    ("restart", "place", "call"),
    [
        *((name, "encoder", 0) for name, arguments in RESTARTS.items() if "pixel_values_videos" in arguments),
        *((name, place, 0) for name in RESTARTS for place in ("decoder", "dynamics")),
        *((name, "dynamics", 1) for name, arguments in RESTARTS.items() if "rows" in arguments),  # after the commit
    ],
)
def test_a_failed_reset_changes_nothing(world, rollouts, restart, place, call):
    failed, _ = rollouts
    assert_same(*(dream(rollout, 0, 4) for rollout in rollouts))
    with failing(RESTART_PLACES[place](world), call), unchanged(failed):
        failed.reset(**RESTARTS[restart])
    assert_same(*(dream(rollout, 4, 6) for rollout in rollouts))


def test_a_failed_reset_to_another_number_of_rows_changes_nothing(world):
    rollouts = [world.start_rollout(FRAMES, generator=seeded()) for _ in range(2)]
    with failing(world.dynamics.latent_head, 0), unchanged(rollouts[0]):
        rollouts[0].reset(FRAMES[:1])
    assert_same(*(dream(rollout, 0, 3) for rollout in rollouts))
    rollouts[0].reset(FRAMES[:1, :2])
    assert (rollouts[0].batch_size, rollouts[0].frame_index) == (1, 2)
    assert rollouts[0].step(ACTIONS[:1, 0]).pixel_values.shape == (1, 3, 16, 16)


REFUSED_RESETS = {
    "frames": ({"pixel_values_videos": rand(2, 1, 3, 8, 8)}, "expected frames of shape"),
    "range": ({"pixel_values_videos": FRAMES + 2}, "float frames from 0 to 1"),
    "no frames": ({"pixel_values_videos": FRAMES[:, :0]}, "at least one row and one frame"),
    "actions": ({"pixel_values_videos": FRAMES, "actions": ACTIONS[:, :3]}, r"actions of shape \(2, 4, 2\)"),
    "NaN": ({"pixel_values_videos": FRAMES, "actions": ACTIONS[:, :4] * torch.inf}, "finite actions"),
    "noise": ({"context_noise": torch.zeros(2, 3, 3, 5)}, r"noise of shape \(2, 4, 3, 5\), got \(2, 3, 3, 5\)"),
    "noise of rows": ({"context_noise": torch.zeros(2, 4, 3, 5), "rows": [0]}, r"noise of shape \(1, 4, 3, 5\)"),
    "generator": (
        {"generator": 5},
        "expected a torch.Generator or SeededNoise, a list of one per row, or None .* got 5",
    ),
    "generators": ({"generator": [seeded(), 5]}, "expected a torch.Generator or SeededNoise, a list of one per row"),
    "their number": ({"generator": [seeded()]}, "one generator for each of 2 rows, got 1"),
    "no rows": ({"rows": []}, r"different indices from 0 to 1 for rows, got \[\]"),
    "bool rows": ({"rows": [True]}, r"different indices from 0 to 1 for rows, got \[True\]"),
    "rows out of range": ({"rows": [2]}, r"different indices from 0 to 1 for rows, got \[2\]"),
    "rows twice": ({"rows": [1, 1]}, r"different indices from 0 to 1 for rows, got \[1, 1\]"),
    "frames of rows": ({"pixel_values_videos": FRAMES, "rows": [0]}, r"context of 1 row\(s\), as many as rows, got 2"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED_RESETS.values(), ids=REFUSED_RESETS)
def test_a_refused_reset_changes_nothing(rollouts, arguments, message):
    refused, _ = rollouts
    assert_same(*(dream(rollout, 0, 2) for rollout in rollouts))
    with unchanged(refused, message):
        refused.reset(**arguments)
    assert_same(*(dream(rollout, 2, 4) for rollout in rollouts))


def test_refused_starts(world):
    generator = seeded()
    state = generator.get_state()
    for arguments, message in (
        ({"context_noise": torch.zeros(2, 1, 3, 5)}, r"noise of shape \(2, 4, 3, 5\)"),
        ({"actions": torch.zeros(2, 3, 2)}, r"actions of shape \(2, 4, 2\)"),
        ({"num_inference_steps": 3}, "power of two from 1 to 16"),
        ({"context_signal_level": 1.0}, "at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            world.start_rollout(FRAMES, generator=generator, **arguments)
        assert torch.equal(generator.get_state(), state)
    for bad in (0, "seed", [seeded(), None], (seeded(),)):
        with pytest.raises(ValueError, match="generator"):
            world.start_rollout(FRAMES, generator=bad)
    for latents in (torch.zeros(0, 1, 3, 5), torch.zeros(1, 0, 3, 5), torch.zeros(1, 1, 3, 4), torch.zeros(1, 3, 5)):
        with pytest.raises(ValueError, match=r"context latents of shape \(B, C, 3, 5\) with at least one row"):
            world.dynamics.start_rollout(latents)
    with pytest.raises(ValueError, match="at least one rollout"):
        DreamerRollout.join([])


def test_copies_of_other_rollouts_are_refused(world, rollouts):
    rollout, _ = rollouts
    for other in (rollout.clone(rows=[0]), tiny_world({}, {"num_hidden_layers": 4}).start_rollout(FRAMES)):
        with unchanged(rollout, r"expected a rollout of (the same model|2 row\(s\)), got one of"):
            rollout.copy_(other)
    assert_same(*(dream(each, 0, 3) for each in rollouts))


MODES = {
    "nothing": contextlib.nullcontext,
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("outside", MODES)
@pytest.mark.parametrize("inside", MODES)
def test_modes_mix(world, inside, outside):
    def run(first, second):
        with MODES[first]():
            rollout = world.start_rollout(FRAMES, generator=[seeded(1), seeded(2)])
            rollout.step(ACTIONS[:, 0])
        with MODES[second]():
            outputs = [rollout.step(ACTIONS[:, 1])]
            kept = rollout.clone()
            rollout.reset(FRAMES[:1], rows=[1])
        with MODES[first]():
            outputs.append(rollout.step(ACTIONS[:, 2]))
            joined = DreamerRollout.join([rollout.clone(rows=[row]) for row in (0, 1)])
            rollout.copy_(kept)
            rollout.reset()
        with MODES[second]():
            outputs += [each.step(ACTIONS[:, 3]) for each in (rollout, kept, joined)]
        return [output.latents for output in outputs]

    latents, expected = run(outside, inside), run("nothing", "nothing")
    if "autocast" in (inside, outside):
        assert all(each.isfinite().all() for each in latents)
        assert (latents[0] - expected[0]).square().mean().sqrt() < 0.3 * expected[0].std()
    else:
        assert_same(latents, expected)
    assert not any(each.is_inference() or each.requires_grad for each in latents)

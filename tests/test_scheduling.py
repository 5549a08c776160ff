import math

import pytest
import torch

from dreamer_hf.scheduling_shortcut import (
    add_noise,
    euler_step,
    num_step_sizes,
    sample_training_grid,
    signal_level_id,
    step_size_id,
)


def test_index_conventions_of_the_published_grid():
    assert num_step_sizes(128) == 8
    assert step_size_id(128, 128) == 0  # the finest step, 1/128
    assert step_size_id(1, 128) == 7  # one step from noise to clean
    assert step_size_id(4, 128) == 5
    assert signal_level_id(0.0, 128) == 0
    assert signal_level_id(0.9, 128) == 115


@pytest.mark.parametrize("num_signal_levels", [2, 8, 10, 100, 128, 1024])
def test_levels_of_the_grid_keep_their_own_index(num_signal_levels):
    for index in range(num_signal_levels):
        assert signal_level_id(index / num_signal_levels, num_signal_levels) == index


@pytest.mark.parametrize("level", [-0.01, 1.0, 1.5])
def test_levels_without_an_index_are_refused(level):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        signal_level_id(level, 128)


@pytest.mark.parametrize("steps", [0, -4, 3, 6, 256])
def test_step_counts_off_the_grid_are_refused(steps):
    with pytest.raises(ValueError, match="power of two from 1 to 128"):
        step_size_id(steps, 128)


def test_noise_mixture_goes_from_noise_to_clean():
    latents, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert torch.equal(add_noise(latents, noise, 0.0), noise)
    assert torch.equal(add_noise(latents, noise, 1.0), latents)
    levels = torch.tensor([[0.0, 0.5, 1.0], [0.25, 0.75, 0.0]])
    mixed = add_noise(latents, noise, levels)
    for row in range(2):
        for frame in range(3):
            level = levels[row, frame].item()
            expected = (1 - level) * noise[row, frame] + level * latents[row, frame]
            torch.testing.assert_close(mixed[row, frame], expected)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_euler_steps_towards_a_fixed_prediction_follow_the_straight_line(steps):
    noise, clean = torch.randn(4, 5), torch.randn(4, 5)
    noisy = noise
    for step in range(steps):
        noisy = euler_step(noisy, clean, step, steps)
        torch.testing.assert_close(noisy, add_noise(clean[None, None], noise[None, None], (step + 1) / steps)[0, 0])


def test_training_grid_is_uniform_over_step_sizes_and_then_over_their_levels():
    levels, steps = sample_training_grid((200_000,), 16, torch.Generator().manual_seed(0), "cpu")
    assert levels.dtype == steps.dtype == torch.int64
    assert (levels % 2**steps == 0).all() and (levels + 2**steps <= 16).all()
    pairs = {(int(level), int(step)) for level, step in zip(levels, steps)}
    assert len(pairs) == sum(16 // 2**step for step in range(5))
    for step in range(5):
        drawn = levels[steps == step] // 2**step
        counts = torch.bincount(drawn, minlength=16 // 2**step)
        expected = 200_000 / 5 / len(counts)
        assert (counts - expected).abs().max() < 5 * math.sqrt(expected)

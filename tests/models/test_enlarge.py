"""Enlarged worlds: larger frames and a state, with the latents and the dreams of before."""

import pytest
import torch

from dreamer_hf.enlarge import averaging, dynamics_with_state, enlarged_tokenizer
from tiny import rand, randn, tiny_dynamics, tiny_tokenizer


def test_larger_frames_have_the_latents_of_the_frames_that_they_are_averaged_to():
    old = tiny_tokenizer(spatial_latents=True, num_latent_tokens=4, image_mean=[0.9, 0.5, 0.2])
    new = enlarged_tokenizer(old, image_size=24, refiner_channels=2).eval()
    assert (new.config.patch_size, new.config.drawn_patch_size, new.config.num_patches) == (12, 8, 4)
    frames, reduce = rand(2, 5, 3, 24, 24), averaging(16, 24).float()
    reduced = torch.einsum("ix,jy,btcxy->btcij", reduce, reduce, frames)
    with torch.no_grad():
        latents = new.encode(frames).latents
        torch.testing.assert_close(latents, old.encode(reduced).latents, atol=1e-5, rtol=1e-4)
        draft = old.decoder(latents)
        enlarged = torch.nn.functional.interpolate(draft[0], (24, 24), mode="bilinear")
        torch.testing.assert_close(new.decoder(latents)[0], enlarged)
    for size in (16, 25):
        with pytest.raises(ValueError, match="image_size above 16 that is a multiple of 2"):
            enlarged_tokenizer(old, image_size=size)


def test_averaging_keeps_constants_and_weighs_by_area():
    matrix = averaging(2, 3)
    torch.testing.assert_close(matrix, torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], dtype=torch.float64))


def test_a_state_in_place_of_a_register_changes_no_latent():
    old = tiny_dynamics(num_register_tokens=2)
    new = dynamics_with_state(old, 3, state_names=["a", "b", "c"]).eval()
    assert (new.config.state_dim, new.config.num_register_tokens, new.config.state_names) == (3, 1, ["a", "b", "c"])
    levels, steps = torch.randint(16, (2, 5)), torch.zeros(2, 5, dtype=torch.long)
    noisy = randn(2, 5, old.config.num_latent_tokens, old.config.latent_dim)
    inputs = {"signal_level_ids": levels, "step_size_ids": steps, "actions": rand(2, 5, 2)}
    with torch.no_grad():
        output = new(noisy, states=randn(2, 5, 3, seed=4), **inputs)
        torch.testing.assert_close(output.latents, old(noisy, **inputs).latents)
    assert output.states.shape == (2, 5, 3)
    with pytest.raises(ValueError, match="without a state and with a register token"):
        dynamics_with_state(new, 3)

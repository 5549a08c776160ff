"""Configurations: what they derive, what they refuse, and that they survive being saved."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig
from tiny import dynamics_config, tokenizer_config

REFUSED = {
    "heads": (tokenizer_config, {"hidden_size": 36, "num_attention_heads": 8}, "twice the number of heads"),
    "odd heads": (tokenizer_config, {"hidden_size": 12, "num_attention_heads": 4}, "twice the number of heads"),
    "key-value heads": (dynamics_config, {"num_key_value_heads": 3}, "choose a divisor"),
    "encoder layers": (tokenizer_config, {"num_encoder_layers": 6}, "multiple of time_every=4"),
    "no layers": (dynamics_config, {"num_hidden_layers": 0}, "multiple of time_every=4"),
    "patches": (tokenizer_config, {"image_size": 20}, "multiple of patch_size=8"),
    "wide patches": (tokenizer_config, {"image_size": [16, 20]}, "multiple of patch_size=8"),
    "three sides": (tokenizer_config, {"image_size": [16, 16, 3]}, r"or \[height, width\]"),
    "groups": (tokenizer_config, {"latent_group_size": 2}, "choose a divisor"),
    "cells": (
        tokenizer_config,
        {"spatial_latents": True, "num_latent_tokens": 3},
        "divide 2 x 2 patches into square cells",
    ),
    "mask ratio": (tokenizer_config, {"max_mask_ratio": 1.0}, "below 1"),
    "mean": (tokenizer_config, {"image_mean": [0.5]}, "each of 3 channels"),
    "deviation": (tokenizer_config, {"image_std": [0.5, 0.0, 0.5]}, "above 0"),
    "levels": (dynamics_config, {"num_signal_levels": 100}, "such as 128"),
    "prediction": (dynamics_config, {"prediction": "noise"}, "choose 'x'"),
    "offset": (dynamics_config, {"action_offset": 2}, "choose 1"),
    "names": (dynamics_config, {"action_names": ["x"]}, "each of action_dim=2"),
    "units": (dynamics_config, {"action_units": ["m", "m", ""]}, "action_units has 3 entries"),
    "statistics": (dynamics_config, {"action_stats": {"mean": [0.0], "std": [1.0]}}, "each of action_dim=2"),
    "no deviation": (dynamics_config, {"action_stats": {"mean": [0.0, 0.0]}}, "'mean' and 'std'"),
    "classes": (dynamics_config, {"action_num_classes": [0, 1]}, "at least 2"),
    "type": (dynamics_config, {"action_dim": "two"}, "action_dim"),
    "window": (dynamics_config, {"context_length": 0}, "at least 1 frame"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refusals_say_what_would_be_valid(case):
    make, changes, words = case
    with pytest.raises((ValueError, StrictDataclassError), match=words):
        make(**changes)


def test_derived_values():
    config = DreamerTokenizerConfig(hidden_size=192, num_attention_heads=6, image_size=64, patch_size=8)
    assert (config.intermediate_size, config.num_key_value_heads, config.head_dim) == (512, 6, 32)
    assert (config.num_patches, config.num_hidden_layers) == (64, 32)
    config = DreamerTokenizerConfig(image_size=(384, 640), latent_group_size=2)
    assert config.image_size == [384, 640] and config.frame_size == (384, 640)
    assert (config.grid_size, config.num_patches, config.bottleneck_shape) == ((24, 40), 960, (512, 16))
    assert DreamerTokenizerConfig(image_size=[64, 64]).image_size == 64
    config = DreamerDynamicsConfig(action_dim=3, action_num_classes=[0, 2, 0])
    assert (config.continuous_action_indices, config.categorical_action_indices) == ([0, 2], [1])
    assert config.num_frame_tokens == 256 + 4 + 1 + 1


def test_saved_and_loaded(tmp_path):
    stats = {"mean": [0.0, 1.0], "std": [1.0, 2.0], "min": [-1.0, -3.0], "max": [1.0, 5.0]}
    dynamics = dynamics_config(action_stats=stats, action_names=["x", "y"], fps=10, action_num_classes=[0, 3])
    config = DreamerWorldConfig(tokenizer_config=tokenizer_config(image_size=[16, 24]), dynamics_config=dynamics)
    config.tokenizer_config.name_or_path = dynamics.name_or_path = "/home/me/run"
    config.save_pretrained(tmp_path)
    assert "/home/me" not in (tmp_path / "config.json").read_text()
    loaded = DreamerWorldConfig.from_pretrained(tmp_path)
    assert type(loaded.dynamics_config) is DreamerDynamicsConfig
    assert loaded.dynamics_config.to_dict() == dynamics.to_dict()
    assert loaded.tokenizer_config.to_dict() == config.tokenizer_config.to_dict()


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises((ValueError, StrictDataclassError), match="trained on"):
        DreamerWorldConfig(tokenizer_config=tokenizer_config(latent_dim=6), dynamics_config=dynamics_config())

"""Configurations: derived values, refusals, and saving and loading."""

import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from tiny import dynamics_config, tiny_world, tokenizer_config

STATS = {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
REFUSED = {
    "heads": (tokenizer_config, {"hidden_size": 36, "num_attention_heads": 8}, "twice the number of heads"),
    "odd heads": (tokenizer_config, {"hidden_size": 12, "num_attention_heads": 4}, "twice the number of heads"),
    "no width": (dynamics_config, {"hidden_size": 0}, "hidden_size to be an int from 1"),
    "no heads": (dynamics_config, {"num_attention_heads": 0}, "num_attention_heads to be an int from 1"),
    "key-value heads": (dynamics_config, {"num_key_value_heads": 3}, "choose a divisor"),
    "no key-value heads": (dynamics_config, {"num_key_value_heads": 0}, "num_key_value_heads to be an int from 1"),
    "encoder layers": (tokenizer_config, {"num_encoder_layers": 6}, "multiple of time_every=4"),
    "no layers": (dynamics_config, {"num_hidden_layers": 0}, "num_hidden_layers to be an int from 1"),
    "a billion layers": (
        dynamics_config,
        {"num_hidden_layers": 10**9},
        "num_hidden_layers to be an int from 1 to 1024",
    ),
    "a truth value": (dynamics_config, {"num_latent_tokens": True}, "num_latent_tokens. expected int, got bool"),
    "groups of one": (dynamics_config, {"time_every": 1}, "time_every to be an int from 2"),
    "patches": (tokenizer_config, {"image_size": 20}, "multiple of patch_size=8"),
    "wide patches": (tokenizer_config, {"image_size": [16, 20]}, "multiple of patch_size=8"),
    "no patches": (tokenizer_config, {"patch_size": 0}, "patch_size to be an int from 1"),
    "a billion pixels": (tokenizer_config, {"image_size": 8 * 10**8}, "choose a larger patch_size"),
    "a draft larger than the frame": (
        tokenizer_config,
        {"draft_patch_size": 9},
        "drawn_patch_size to be an int from 1",
    ),
    "one convolution": (tokenizer_config, {"refiner_layers": 1}, "refiner_layers to be an int from 2"),
    "three sides": (tokenizer_config, {"image_size": [16, 16, 3]}, r"or \[height, width\]"),
    "no sides": (tokenizer_config, {"image_size": []}, r"or \[height, width\]"),
    "latent groups": (tokenizer_config, {"latent_group_size": 2}, "choose a divisor"),
    "no latents": (tokenizer_config, {"latent_dim": 0}, "latent_dim to be an int from 1"),
    "cells": (
        tokenizer_config,
        {"spatial_latents": True, "num_latent_tokens": 3},
        "divide 2 x 2 patches into square cells",
    ),
    "tokens of the whole frame among others": (
        tokenizer_config,
        {"num_whole_frame_tokens": 1},
        "goes with spatial_latents",
    ),
    "only tokens of the whole frame": (
        tokenizer_config,
        {"spatial_latents": True, "num_latent_tokens": 4, "num_whole_frame_tokens": 4},
        "num_whole_frame_tokens to be an int from 0 to 3",
    ),
    "half a latent for the whole frame": (
        tokenizer_config,
        {
            "spatial_latents": True,
            "num_latent_tokens": 4,
            "latent_dim": 4,
            "latent_group_size": 2,
            "num_whole_frame_tokens": 3,
        },
        "a multiple of latent_group_size=2",
    ),
    "mask ratio": (tokenizer_config, {"max_mask_ratio": 1.0}, "below 1"),
    "mask ratio of no number": (tokenizer_config, {"max_mask_ratio": math.nan}, "below 1"),
    "mean": (tokenizer_config, {"image_mean": [0.5]}, "each of 3 channels"),
    "mean of no number": (tokenizer_config, {"image_mean": [0.5, math.nan, 0.5]}, "image_mean to be finite"),
    "deviation": (tokenizer_config, {"image_std": [0.5, 0.0, 0.5]}, "image_std to be positive"),
    "infinite deviation": (
        tokenizer_config,
        {"image_std": [0.5, math.inf, 0.5]},
        "image_std to be positive and finite",
    ),
    "epsilon": (tokenizer_config, {"rms_norm_eps": math.nan}, "rms_norm_eps to be positive"),
    "softcapping": (dynamics_config, {"attn_logit_softcapping": -1.0}, "attn_logit_softcapping to be positive"),
    "initializer": (dynamics_config, {"initializer_range": -0.1}, "initializer_range to be at least 0"),
    "rotary base": (dynamics_config, {"rope_theta": math.nan}, "rope_theta to be positive"),
    "rotary base of text": (dynamics_config, {"rope_theta": "big"}, "rope_theta to be a number"),
    "rotary type": (
        dynamics_config,
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        "rope_parameters to be",
    ),
    "levels": (dynamics_config, {"num_signal_levels": 100}, "such as 128"),
    "prediction": (dynamics_config, {"prediction": "noise"}, "to be 'x'"),
    "offset": (dynamics_config, {"action_offset": 2}, "action_offset to be 1"),
    "names": (dynamics_config, {"action_names": ["x"]}, "each of action_dim=2"),
    "units": (dynamics_config, {"action_units": ["m", "m", ""]}, "action_units has 3 entries"),
    "statistics": (dynamics_config, {"action_stats": {"mean": [0.0], "std": [1.0]}}, "each of action_dim=2"),
    "no deviation": (dynamics_config, {"action_stats": {"mean": [0.0, 0.0]}}, "'mean' and 'std'"),
    "mean action of no number": (dynamics_config, {"action_stats": STATS | {"mean": [math.nan, 0.0]}}, "finite"),
    "negative deviation": (dynamics_config, {"action_stats": STATS | {"std": [1.0, -1.0]}}, "at least 0"),
    "a huge bound": (dynamics_config, {"action_stats": STATS | {"max": [10**400, 0]}}, "finite"),
    "classes": (dynamics_config, {"action_num_classes": [0, 1]}, "from 2"),
    "a billion classes": (dynamics_config, {"action_num_classes": [0, 10**9]}, "from 2 to 65536"),
    "no actions": (dynamics_config, {"action_dim": 0}, "action_dim to be an int from 1"),
    "a billion actions": (dynamics_config, {"action_dim": 10**9}, "action_dim to be an int from 1"),
    "type": (dynamics_config, {"action_dim": "two"}, "action_dim"),
    "window": (dynamics_config, {"context_length": 0}, "context_length to be an int from 1"),
    "frame rate": (dynamics_config, {"fps": -5.0}, "fps to be positive"),
    "dtype": (dynamics_config, {"dtype": "bfloa16"}, "name of a torch dtype"),
    "no dtype": (dynamics_config, {"dtype": "nn"}, "name of a torch dtype"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refusals_say_what_would_be_valid(case):
    make, changes, words = case
    with pytest.raises((ValueError, StrictDataclassError), match=words):
        make(**changes)


def save_changed(folder, part=None, **changes):
    """Save a world and change some values of its config in the file, in the world's own or in those of a part."""
    tiny_world().save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    (values if part is None else values[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("dynamics_config", {"num_hidden_layers": 10**9}, "num_hidden_layers to be an int from 1 to 1024"),
        ("dynamics_config", {"action_stats": STATS | {"mean": [math.nan, 0.0]}}, "finite"),
        ("tokenizer_config", {"hidden_size": "wide"}, "hidden_size"),
        ("dynamics_config", {"dtype": "bfloa16"}, "name of a torch dtype"),
        (None, {"dtype": "bfloa16"}, "name of a torch dtype"),
        (None, {"tokenizer_config": 5}, "tokenizer_config"),
        (None, {"_attn_implementation": "x/y"}, "attn_implementation to be 'sdpa' or 'eager'"),
    ],
)
def test_impossible_values_in_a_file_are_one_sentence(tmp_path, part, changes, words):
    save_changed(tmp_path, part, **changes)
    with pytest.raises(ValueError, match=words) as refusal:
        DreamerWorldModel.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", ["null", "[]", "5", '"text"', "[" * 100_000])
def test_configs_that_hold_something_else_are_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="does not hold a JSON object") as refusal:
        DreamerWorldConfig.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)


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


def test_configs_of_older_versions_keep_their_rotary_base(tmp_path):
    assert dynamics_config().rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    save_changed(tmp_path, "tokenizer_config", rope_theta=100.0)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["tokenizer_config"]["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    loaded = DreamerWorldConfig.from_pretrained(tmp_path)
    assert loaded.tokenizer_config.rope_parameters == {"rope_type": "default", "rope_theta": 100.0}
    assert "rope_theta" not in loaded.tokenizer_config.to_dict()


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
    with pytest.raises(
        (ValueError, StrictDataclassError), match="expected dynamics_config to be a DreamerDynamicsConfig"
    ):
        DreamerWorldConfig(tokenizer_config=tokenizer_config(), dynamics_config=BertConfig())

"""How a model dreams is saved with it, and is what holds where no argument says otherwise."""

import json

import pytest
import torch
from transformers import AutoModel

from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel, DreamerGenerationConfig, DreamerWorldModel
from tiny import rand, randn, tiny_dynamics, tiny_world

FILE = "generation_config.json"


def test_defaults():
    for model in (tiny_dynamics(), tiny_world()):
        config = model.generation_config
        assert (config.num_inference_steps, config.context_signal_level) == (4, 0.9)
    assert not tiny_world().tokenizer.can_generate()


@pytest.mark.parametrize("make_model", [tiny_dynamics, tiny_world])
def test_settings_are_saved_and_loaded(make_model, tmp_path):
    model = make_model()
    model.generation_config.num_inference_steps, model.generation_config.context_signal_level = 2, 0.75
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / FILE).read_text())
    assert (saved["num_inference_steps"], saved["context_signal_level"]) == (2, 0.75)
    for loaded in (type(model).from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded.generation_config) is DreamerGenerationConfig
        assert loaded.generation_config == model.generation_config
    given = type(model).from_pretrained(tmp_path, generation_config=DreamerGenerationConfig(num_inference_steps=8))
    assert (given.generation_config.num_inference_steps, given.generation_config.context_signal_level) == (8, 0.9)


def test_a_world_and_its_dynamics_share_their_settings(tmp_path):
    world = tiny_world()
    assert world.generation_config is world.dynamics.generation_config
    world.generation_config.num_inference_steps = 2
    world.save_pretrained(tmp_path)
    loaded = DreamerWorldModel.from_pretrained(tmp_path)
    assert loaded.dynamics.generation_config is loaded.generation_config


def test_models_without_the_file_load_with_defaults(tmp_path):
    tiny_world().save_pretrained(tmp_path)
    (tmp_path / FILE).unlink()
    assert DreamerWorldModel.from_pretrained(tmp_path).generation_config == DreamerGenerationConfig()


def test_configured_settings_hold_where_no_argument_is_given():
    world, frames, actions = tiny_world(), rand(1, 2, 3, 16, 16), randn(1, 4, 2)

    def dreams(*arguments):
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        rollout = world.start_rollout(frames, None, None, *arguments, generator=generators[0])
        generated = world.generate(frames, actions, None, *arguments, generator=generators[1])
        return rollout.step(actions[:, 2]).latents, generated.latents

    explicit, default = dreams(2, 0.5), dreams()
    assert all(torch.equal(*pair) for pair in zip(default, dreams(4, 0.9)))
    world.generation_config.num_inference_steps, world.generation_config.context_signal_level = 2, 0.5
    for configured, given, before in zip(dreams(), explicit, default):
        assert torch.equal(configured, given) and not torch.equal(configured, before)
    assert world.start_rollout(frames).latent_rollout.schedule.num_inference_steps == 2
    assert world.dynamics.start_rollout(randn(1, 1, 3, 5)).schedule.context_signal_level == 0.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"num_inference_steps": 3}', "power of two for num_inference_steps, got 3"),
        ('{"num_inference_steps": "4"}', "power of two for num_inference_steps, got '4'"),
        ('{"context_signal_level": 1.0}', "below 1 for context_signal_level, got 1.0"),
        ('{"context_signal_level": NaN}', "below 1 for context_signal_level, got nan"),
        ("[4]", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(content, message, tmp_path):
    tiny_dynamics().save_pretrained(tmp_path)
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        DreamerDynamicsModel.from_pretrained(tmp_path)


def test_the_frame_rate_is_always_known(tmp_path):
    assert DreamerDynamicsConfig().fps == 10.0
    config = DreamerDynamicsConfig(fps=20)
    assert config.fps == 20.0 and type(config.fps) is float
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": None}))
    assert DreamerDynamicsConfig.from_pretrained(tmp_path).fps == 10.0

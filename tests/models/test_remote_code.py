"""Folders with code: loaded, used and saved again in a Python that cannot import `dreamer_hf`."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from dreamer_hf import DreamerTokenizerConfig, DreamerTokenizerModel, DreamerVideoProcessor, DreamerWorldModel
from dreamer_hf.remote_code import export_code
from tiny import rand, randn, tiny_agent, tiny_dynamics, tiny_tokenizer, tiny_world
from without_package import run_without_the_package

MODELS = {"tokenizer": tiny_tokenizer, "dynamics": tiny_dynamics, "world": tiny_world, "agent": tiny_agent}

# Loads each folder, saves the model again, and uses what is loaded from there.
USE = """
import sys
import numpy as np, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoVideoProcessor
folder = Path(sys.argv[1])
models = {}
for name in ("tokenizer", "dynamics", "world", "agent"):
    AutoModel.from_pretrained(folder / name, trust_remote_code=True).save_pretrained(folder / "again" / name)
    models[name] = AutoModel.from_pretrained(folder / "again" / name, trust_remote_code=True)
inputs = load_file(folder / "inputs.safetensors")
frames, actions = inputs["frames"], inputs["actions"]
latents = models["tokenizer"].encode(frames).latents
generated = models["dynamics"].generate(latents, actions, generator=torch.Generator().manual_seed(0)).latents
rollout = models["world"].start_rollout(frames, generator=torch.Generator().manual_seed(0))
video = torch.stack([rollout.step(action).pixel_values for action in actions[:, 4:].unbind(1)], dim=1).contiguous()
agent = models["agent"]
dream = agent.imagine(latents, actions[:, :4], horizon=3, generator=torch.Generator().manual_seed(0))
acted = agent.start(frames, actions[:, :4], generator=torch.Generator().manual_seed(0)).act()
results = {"imagined": dream.agent_states, "acted": acted}
save_file({"latents": latents, "generated": generated, "video": video} | results, folder / "used.safetensors")
processor = AutoVideoProcessor.from_pretrained(folder / "world", trust_remote_code=True)
assert processor(np.zeros((2, 40, 40, 3), np.uint8), return_tensors="pt").pixel_values_videos.shape == (1, 2, 3, 16,
16)
"""


@pytest.fixture
def unregistered():
    """Restore the classes that the test registers."""
    yield
    DreamerTokenizerConfig._auto_class = DreamerTokenizerModel._auto_class = None


@pytest.mark.slow
def test_folders_with_code_need_no_package(tmp_path):
    models = {name: make() for name, make in MODELS.items()}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    DreamerVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "world")
    for name in models:
        files = export_code(tmp_path / name)
        assert f"modeling_dreamer_{name}.py" in files and all((tmp_path / name / file).is_file() for file in files)
    frames, actions = rand(2, 4, 3, 16, 16), randn(2, 7, 2, seed=1)
    save_file({"frames": frames, "actions": actions}, tmp_path / "inputs.safetensors")
    run_without_the_package(USE, tmp_path, tmp_path)

    used = load_file(tmp_path / "used.safetensors")
    with torch.no_grad():
        latents = models["tokenizer"].encode(frames).latents
        generated = models["dynamics"].generate(latents, actions, generator=torch.Generator().manual_seed(0)).latents
        rollout = models["world"].start_rollout(frames, generator=torch.Generator().manual_seed(0))
        video = torch.stack([rollout.step(action).pixel_values for action in actions[:, 4:].unbind(1)], dim=1)
        agent, seeded = models["agent"], torch.Generator().manual_seed(0)
        imagined = agent.imagine(latents, actions[:, :4], horizon=3, generator=seeded).agent_states
        acted = agent.start(frames, actions[:, :4], generator=torch.Generator().manual_seed(0)).act()
    results = {"latents": latents, "generated": generated, "video": video, "imagined": imagined, "acted": acted}
    for name, expected in results.items():
        torch.testing.assert_close(used[name], expected, atol=1e-5, rtol=1e-5)


def test_the_installed_package_comes_before_the_code_of_a_folder(tmp_path):
    tiny_world().save_pretrained(tmp_path)
    export_code(tmp_path)
    world = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(world) is DreamerWorldModel
    world.save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("*.py"))
    assert "auto_map" not in (tmp_path / "plain" / "config.json").read_text()


def test_registering_for_auto_classes_exports_code(tmp_path, unregistered):
    """transformers itself takes `DreamerTokenizerModel` for a tokenizer of text."""
    DreamerTokenizerConfig.register_for_auto_class()
    DreamerTokenizerModel.register_for_auto_class()
    tiny_tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_dreamer.DreamerTokenizerConfig",
        "AutoModel": "modeling_dreamer_tokenizer.DreamerTokenizerModel",
    }
    assert (tmp_path / "modeling_layers.py").exists()


def test_other_folders_are_refused(tmp_path):
    for content in (None, '{"model_type": "bert"}'):
        if content:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(FileNotFoundError, match="holds no saved model of dreamer_hf"):
            export_code(tmp_path)

"""Saved weights: whole ones load, others are refused in one sentence, and a digest tells whether files changed."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerModel, DreamerVideoProcessor, DreamerWorldModel
from dreamer_hf.adapters import replace_action_encoder
from dreamer_hf.loading import load_world
from dreamer_hf.start_frames import StartFrames, save_start_frames
from dreamer_hf.training.finetune import load_model
from dreamer_hf.weight_files import verify_weights
from tiny import tiny_dynamics, tiny_tokenizer, tiny_world

MODELS = {"tokenizer": tiny_tokenizer, "dynamics": tiny_dynamics, "world": tiny_world}
WEIGHTS = "model.safetensors"


@pytest.fixture
def world_folder(tmp_path):
    tiny_world().save_pretrained(tmp_path)
    return tmp_path


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def foreign(weights):
    weights.clear()
    weights["a"] = torch.zeros(1)


def without_dynamics(weights):
    for name in [name for name in weights if name.startswith("dynamics.")]:
        del weights[name]


def renamed(weights):
    weights["dynamics.latent_hea."] = weights.pop("dynamics.latent_head.weight")


def extended(weights):
    weights["dynamics.extra"] = torch.zeros(1)


def reshaped(weights):
    weights["dynamics.latent_head.weight"] = torch.zeros(2, 2)


INCOMPLETE = {
    foreign: "missing: dynamics.action_encoder.action_proj.bias.* and 113 more; unexpected: a",
    without_dynamics: "missing: dynamics",
    renamed: "missing: dynamics.latent_head.weight; unexpected: dynamics.latent_hea.",
    extended: r"\(unexpected: dynamics.extra\)",
    reshaped: r"\(of another shape: dynamics.latent_head.weight\)",
}


@pytest.mark.parametrize("load", [DreamerWorldModel.from_pretrained, AutoModel.from_pretrained])
@pytest.mark.parametrize("change", INCOMPLETE, ids=lambda change: change.__name__)
def test_incomplete_weights_are_refused_in_one_sentence(world_folder, change, load, capfd):
    change_weights(world_folder, change)
    with pytest.raises(
        ValueError, match=f"does not hold the weights of a DreamerWorldModel .*{INCOMPLETE[change]}"
    ) as refusal:
        load(world_folder)
    assert "\n" not in str(refusal.value)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("size", [0, 5, 1000, -100])
def test_truncated_weights_are_refused_in_one_sentence(world_folder, size):
    content = (world_folder / WEIGHTS).read_bytes()
    (world_folder / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(OSError, match="holds damaged weights") as refusal:
        DreamerWorldModel.from_pretrained(world_folder)
    assert "\n" not in str(refusal.value)


def test_pickled_weights_are_not_read(world_folder):
    torch.save(load_file(world_folder / WEIGHTS), world_folder / "pytorch_model.bin")
    (world_folder / WEIGHTS).unlink()
    with pytest.raises(OSError, match=WEIGHTS):
        DreamerWorldModel.from_pretrained(world_folder)


def test_other_shapes_load_on_request(world_folder):
    change_weights(world_folder, reshaped)
    assert DreamerWorldModel.from_pretrained(world_folder, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_saved_with_a_digest(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path)
    assert verify_weights(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert "weights_sha256" not in loaded.config.to_dict(), "it belongs to the folder"
    loaded.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert verify_weights(tmp_path / "shards")


@pytest.mark.parametrize("shard_size", ["50GB", "50KB"])
def test_a_changed_byte_is_found(tmp_path, shard_size):
    tiny_world().save_pretrained(tmp_path, max_shard_size=shard_size)
    path = sorted(tmp_path.glob("model*.safetensors"))[-1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="is not the file that was saved"):
        verify_weights(tmp_path)


def test_worlds_of_older_versions_have_no_digest(world_folder):
    config = json.loads((world_folder / "config.json").read_text())
    del config["weights_sha256"]
    (world_folder / "config.json").write_text(json.dumps(config))
    assert not verify_weights(world_folder)
    assert DreamerWorldModel.from_pretrained(world_folder)


WAYS_IN = {
    "world": DreamerWorldModel.from_pretrained,
    "tokenizer": DreamerTokenizerModel.from_pretrained,
    "config": DreamerDynamicsConfig.from_pretrained,
    "digest": verify_weights,
    "play": lambda path: load_world(str(path), "cpu"),
    "train": lambda path: load_model(str(path), "dreamer_tokenizer"),
}


@pytest.mark.parametrize("name", WAYS_IN)
@pytest.mark.parametrize("content", ["null", "[]", "[1]", "3", '"text"', "{"])
def test_a_config_without_a_json_object_is_refused_in_one_sentence(world_folder, name, content):
    (world_folder / "config.json").write_text(content)
    message = "not a valid JSON file" if content == "{" else "does not hold a JSON object"
    with pytest.raises((ValueError, OSError), match=f"{message}|does not hold a JSON object: save") as refusal:
        WAYS_IN[name](world_folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("digests", [5, ["a"], {"model.safetensors": 5}])
def test_a_damaged_digest_is_refused(world_folder, digests):
    config = json.loads((world_folder / "config.json").read_text())
    (world_folder / "config.json").write_text(json.dumps(config | {"weights_sha256": digests}))
    with pytest.raises(ValueError, match=r"weights_sha256 in config\.json of .* is damaged"):
        verify_weights(world_folder)


@pytest.fixture
def complete_folder(world_folder):
    """Return the folder of a world with start frames and a video processor."""
    frames = torch.zeros(1, 2, 3, 16, 16, dtype=torch.uint8)
    save_start_frames(world_folder, StartFrames(frames, torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.bool)))
    DreamerVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(world_folder)
    return world_folder


COMPANIONS = ["start_frames.safetensors", "video_preprocessor_config.json"]


def companions(folder):
    return sorted(path.name for path in folder.iterdir() if path.name in COMPANIONS)


def test_a_saved_world_keeps_the_files_that_came_with_it(complete_folder, tmp_path):
    DreamerWorldModel.from_pretrained(complete_folder).save_pretrained(tmp_path / "again")
    assert companions(tmp_path / "again") == COMPANIONS
    for name in COMPANIONS:
        assert (tmp_path / "again" / name).read_bytes() == (complete_folder / name).read_bytes()


def test_start_frames_of_other_actions_are_not_kept(complete_folder, tmp_path):
    world = DreamerWorldModel.from_pretrained(complete_folder)
    replace_action_encoder(world.dynamics, {"action_dim": 5})
    world.save_pretrained(tmp_path / "again")
    assert companions(tmp_path / "again") == COMPANIONS[1:]


def test_worlds_that_came_with_nothing_are_saved_alone(complete_folder, tmp_path):
    world = DreamerWorldModel.from_pretrained(complete_folder)
    shutil.rmtree(complete_folder)
    for number, saved in enumerate((world, tiny_world())):
        saved.save_pretrained(tmp_path / f"again-{number}")
        assert companions(tmp_path / f"again-{number}") == []


USE = """
import sys
import torch
from dreamer_hf import DreamerWorldModel
world = DreamerWorldModel.from_pretrained(sys.argv[1])
frames = torch.rand(2, 3, 3, 16, 16)
world.generate(frames, torch.zeros(2, 5, 2))
rollout = world.start_rollout(frames)
rollout.step(torch.zeros(2, 2))
world.train()
world.activation_checkpointing_enable()
world(frames).latents.square().mean().backward()
world.save_pretrained(sys.argv[1] + "/again")
DreamerWorldModel.from_pretrained(sys.argv[1] + "/again", device_map="auto").generate(frames, torch.zeros(2, 5, 2))
"""


@pytest.mark.slow
def test_normal_use_writes_nothing_to_standard_error(world_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Python itself warns about the source of torchao, which transformers imports, where that has no bytecode yet.
    command = [sys.executable, "-W", "ignore::SyntaxWarning", "-c", USE, str(world_folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

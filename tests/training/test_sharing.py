"""What a finished run leaves for others, and how it gets to the Hub: the real client, and a stand-in as server."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments
from hub_stand_in import HubStandIn
from tiny import read_metrics, script_command, script_environment, train
from without_package import run_without_the_package

REPO_ID = "someone/square-world"
TOKEN = "hf_SECRETsecretSECRETsecret"

# The package's own ways to the Hub, after a run has been uploaded there.
LOAD_AND_PUSH = f"""
import sys, torch
from dreamer_hf import DreamerWorldModel
from dreamer_hf.start_frames import load_start_frames
world = DreamerWorldModel.from_pretrained("{REPO_ID}")
last = DreamerWorldModel.from_pretrained("{REPO_ID}", variant="non_ema")
torch.save([model.dynamics.latent_head.weight for model in (world, last)], sys.argv[1])
assert load_start_frames("{REPO_ID}").pixel_values_videos.shape[2:] == (3, 16, 16)
world.tokenizer.push_to_hub("{REPO_ID}")
"""


def code_of(card: str) -> str:
    return re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)


@pytest.mark.slow
def test_a_run_goes_to_the_hub_and_comes_back(tmp_path, data_dir, configs, tokenizer_run):
    folder, home = tmp_path / "run", tmp_path / "home"
    home.mkdir()
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", tokenizer_run]
    argv += ["--output_dir", folder, "--max_train_steps", 4, "--ema_decay", 0.9, "--report_to", "tensorboard"]
    argv += ["--push_to_hub", "--hub_model_id", REPO_ID]
    with HubStandIn(REPO_ID, TOKEN, "models") as hub:
        environment = script_environment() | hub.environment(home)
        command = script_command("dynamics", *argv)
        pushed = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert pushed.returncode == 0, pushed.stderr
        assert f"uploaded: {hub.address}/{REPO_ID}/commit/" in pushed.stdout
        files = dict(hub.files)
        check_files(files, folder)
        check_nothing_private(files, folder, tmp_path, [data_dir, tokenizer_run, configs["dynamics"]])

        code = code_of(files["README.md"].decode()) + "\nprint(tuple(frame.shape))"
        assert run_without_the_package(code, home, **hub.environment(home)).endswith("(1, 3, 16, 16)\n")

        command = [sys.executable, "-c", LOAD_AND_PUSH, str(tmp_path / "weights.pt")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | hub.environment(home))
        assert done.returncode == 0, done.stderr
    averaged, last = torch.load(tmp_path / "weights.pt")
    assert not torch.equal(averaged, last)
    checkpoint = load_file(folder / "checkpoint-4" / "model.safetensors")
    assert torch.equal(last, checkpoint["latent_head.weight"])
    assert json.loads(hub.files["config.json"])["model_type"] == "dreamer_tokenizer"  # what push_to_hub wrote


def check_files(files, folder):
    code = {name for name in files if name.endswith(".py")}
    weights = {"model.safetensors", "model.non_ema.safetensors", "start_frames.safetensors"}
    texts = {"README.md", "config.json", "generation_config.json", "video_preprocessor_config.json"}
    texts |= {"metrics.jsonl", "training_arguments.json"}
    assert set(files) == code | weights | texts | {"preview.gif"}
    assert "modeling_dreamer_world.py" in code
    for name, content in files.items():
        assert content == (folder / name).read_bytes()
    assert json.loads(files["training_arguments.json"])["ema_decay"] == 0.9
    video = Image.open(folder / "preview.gif")
    assert video.n_frames == 2 * 6  # two windows of six frames


def check_nothing_private(files, folder, tmp_path, paths):
    logs = [path for path in (folder / "dreamer_hf").rglob("*") if path.is_file()]
    written = [*files.values(), *(path.read_bytes() for path in logs)]
    assert logs
    for secret in (TOKEN, str(tmp_path), str(folder), *map(str, paths)):
        assert not any(secret.encode() in content for content in written), secret
    assert str(paths[0]) in (folder / "training_paths.json").read_text()  # kept, for the one whose machine it is


def test_a_hub_that_cannot_be_reached_is_reported_before_training(tmp_path, data_dir, configs, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--tokenizer", "any"]
    argv += ["--output_dir", tmp_path / "run", "--push_to_hub", "--hub_model_id", REPO_ID]
    with pytest.raises(OSError, match=rf"{REPO_ID} cannot be opened for --push_to_hub \(.*offline.*hf auth login"):
        train("dynamics", *argv)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["tokenizer", "world"])
def test_every_run_leaves_a_card_whose_code_works(kind, tokenizer_run, dynamics_run, monkeypatch):
    folder = tokenizer_run if kind == "tokenizer" else dynamics_run
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == (
        "transformers",
        "apache-2.0",
        "robotics",
    )
    assert {"dreamer_hf", "world-model", kind} <= set(card.data.tags)
    last = {name: value for name, value in read_metrics(folder)[-1].items() if name.startswith("eval_")}
    assert last and all(f"{value:.4g} |" in card.text for value in last.values())
    assert "Trained on 5 episodes, 100 frames" in card.text and "episodes held out: 1." in card.text
    preview = "preview.png" if kind == "tokenizer" else "preview.gif"
    assert f"({preview})" in card.text and Image.open(folder / preview).size[0] > 16
    assert (
        ('variant="non_ema"' in card.text) == (folder / "model.non_ema.safetensors").exists() == (kind == "tokenizer")
    )
    if kind == "world":
        assert "| dy [px] | 0 | 1.4 | -2 | 2 |" in card.text
    monkeypatch.chdir(folder)
    names = {}
    exec(code_of(card.text), names)
    assert names["frames" if kind == "tokenizer" else "frame"].shape[-3:] == (3, 16, 16)


@pytest.mark.parametrize("arguments_class", [TokenizerArguments, DynamicsArguments])
def test_no_key_that_may_name_a_folder_is_public(arguments_class):
    keys = ["data_dir", "output_dir", "config", "pretrained", "resume_from_checkpoint"]
    keys += ["tokenizer"] if arguments_class is DynamicsArguments else []
    arguments = arguments_class.of(**{key: f"/home/me/{key}" for key in keys}, preset="pusht", hub_model_id=REPO_ID)
    public = arguments.public_values()
    assert "/home/me" not in json.dumps(public) and not set(keys) & set(public)
    assert (public["preset"], public["hub_model_id"], public["report_to"]) == ("pusht", REPO_ID, "none")
    assert public["learning_rate"] == arguments.optimizer.learning_rate


@pytest.mark.parametrize("name", ["world", "/home/me/world", "me/deep/world"])
def test_a_repository_has_an_owner_and_a_name(name):
    with pytest.raises(ValueError, match=f"expected an owner and a name for --hub_model_id, such as .*, got {name}"):
        TokenizerArguments.of(data_dir="data", output_dir="out", hub_model_id=name)

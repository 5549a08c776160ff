"""Which engine opens a world, and what is said about it."""

import os
import subprocess
import sys

import pytest

from dreamer_hf import DreamerWorldModel
from dreamer_hf.engines import engine_choice
from dreamer_hf.engines.engine_choice import choose_engine
from dreamer_hf.engines.opening import is_export, open_world, ready_export
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.play import PlayOptions
from tiny import tiny_tokenizer


def options(**changes):
    return PlayOptions(**{"threads": 1, **changes})


def choose(is_export=False, has_export=False, **changes):
    return choose_engine(options(**changes), is_export, lambda: has_export)


@pytest.fixture
def without(monkeypatch):
    """Make packages seem to be missing."""

    def remove(*names):
        found = engine_choice.is_installed
        monkeypatch.setattr(engine_choice, "is_installed", lambda name: name not in names and found(name))

    monkeypatch.setattr(engine_choice, "has_gpu", lambda: False)
    return remove


def test_an_engine_that_is_asked_for_is_taken():
    assert choose(engine="torch").name == "torch" and choose(engine="onnx").name == "onnx"
    with pytest.raises(ValueError, match="unknown engine 'jax': choose one of auto, torch, onnx"):
        choose(engine="jax")


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--adapter", {"adapter": "me/lora"}),
        ("--int8", {"int8": True}),
        ("--compile", {"compile": True}),
        ("--compare", {"compare": True}),
        ("--device cuda:1", {"device": "cuda:1"}),
    ],
)
def test_options_that_only_pytorch_has(flag, changes, without):
    without()
    assert choose(**changes).name == "torch" and flag in choose(**changes).reason
    for refused in ({"engine": "onnx"}, {"is_export": True}):
        with pytest.raises(ValueError, match=f"^{flag} needs the engine torch: leave it out"):
            choose(**changes, **refused)


def test_auto_takes_what_suits_the_machine(without, monkeypatch):
    without()
    assert choose().name == choose(device="cpu").name == "onnx"
    without("onnx")
    assert choose().name == "torch" and "extra export" in choose().reason
    assert choose(has_export=True).name == "onnx"
    without("onnxruntime")
    assert choose(has_export=True).name == "torch" and "extra onnx" in choose(has_export=True).reason
    without("torch")
    assert choose().name == "onnx" and choose().is_certain
    monkeypatch.undo()
    monkeypatch.setattr(engine_choice, "has_gpu", lambda: True)
    assert choose() == ("torch", "on the GPU", True)


@pytest.mark.slow
def test_an_export_without_its_model(export_folder, world_folder):
    assert is_export(str(export_folder)) and not is_export(str(world_folder)) and not is_export("me/anything")
    assert choose(is_export=True).name == "onnx"
    with pytest.raises(ValueError, match="is an export for ONNX Runtime"):
        choose(is_export=True, engine="torch")
    world, starts, note = open_world(str(export_folder), options())
    assert isinstance(world, OnnxWorld) and starts is world.starts and len(starts) == 2
    assert note == "Engine: ONNX Runtime on the CPU, as the world is an export." and world.threads == 1
    with pytest.raises(ValueError, match="--start needs PyTorch and the model itself"):
        open_world(str(export_folder), options(start=str(world_folder)))


@pytest.mark.slow
def test_a_world_is_exported_once_and_again_when_it_changes(world_folder, world, starts, tmp_path, without):
    without()
    said = []
    for expected in (1, 1):
        opened = open_world(str(world_folder), options(engine="onnx"), announce=said.append)
        assert isinstance(opened.world, OnnxWorld) and len(said) == expected and len(opened.starts) == 2
    assert "Exporting" in said[0] and str(ready_export(str(world_folder)).parent) in said[0]
    changed = DreamerWorldModel.from_pretrained(world_folder)
    changed.dynamics.state_dict()[next(iter(changed.dynamics.state_dict()))].add_(1)
    changed.save_pretrained(tmp_path)
    assert ready_export(str(tmp_path)) is None
    given = open_world(str(world_folder), options(engine="onnx", start=str(world_folder)), announce=said.append)
    assert len(given.starts) == 2 and len(said) == 1


def test_auto_falls_back_to_pytorch_if_a_world_cannot_be_exported(world_folder, tmp_path, without, monkeypatch):
    """The folder for the export is below a file, so writing it fails as on a full disk."""
    without()
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "file"))
    world, _, note = open_world(str(world_folder), options(device="cpu"), announce=print)
    assert isinstance(world, DreamerWorldModel)
    assert note.startswith("Engine: PyTorch, as ONNX Runtime cannot be used (") and note.count("\n") == 0
    with pytest.raises(NotADirectoryError):
        open_world(str(world_folder), options(engine="onnx"), announce=print)


def test_a_world_that_is_not_there_is_refused_in_one_sentence(tmp_path, without):
    without()
    (tmp_path / "empty").mkdir()
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    said = []
    for name in ("none", "empty", "tokenizer"):
        for engine in ("auto", "torch", "onnx"):
            with pytest.raises(ValueError, match="cannot load a world from") as refused:
                open_world(str(tmp_path / name), options(engine=engine), announce=said.append)
            assert "\n" not in str(refused.value)
    assert said == []


WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate", "h5py", "pyarrow", "av", "cv2", "PIL"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""
ENVIRONMENTS = """
import gymnasium, numpy as np, dreamer_hf.envs
model = sys.argv[1]
env = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=model, engine="onnx", threads=1)
frame, _ = env.reset(seed=0)
frames = [env.step(np.array([250.0, 250.0], np.float32))[0] for _ in range(3)]
assert frame.shape == (16, 16, 3) and (frames[0] != frames[-1]).any()
given = {"frames": np.zeros((4, 16, 16, 3), np.uint8), "actions": np.full((4, 2), 250.0)}
assert not env.reset(options=given)[0].any()
env.step(env.action_space.sample())
envs = gymnasium.make_vec("dreamer_hf/DreamerWorld-v0", num_envs=2, model=model, engine="auto", threads=1)
first, _ = envs.reset(seed=0)
assert (first[0] == frame).all()
assert np.abs(envs.step(np.full((2, 2), 250.0, np.float32))[0][0].astype(int) - frames[0]).max() <= 1
from dreamer_hf.engines.opening import open_world
for name, needs in (("torch", "dreamer_hf[torch]"), ("onnx", "dreamer_hf[export]")):
    try:
        gymnasium.make("dreamer_hf/DreamerWorld-v0", model=sys.argv[2], engine=name)
    except (ValueError, ImportError) as error:
        assert needs in str(error) or error.name == "torch", error
    else:
        raise AssertionError(name)
"""
PLAY = """
from dreamer_hf.cli import main
main(arguments=["play", "--model", sys.argv[1], "--headless", "--steps", "3", "--threads", "1", *sys.argv[2:]])
"""


def run_without_torch(code, *arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, arguments)]
    env = {**os.environ, "HF_HOME": f"{os.environ['HF_HOME']}/nothing-is-kept-here"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.slow
def test_environments_run_without_pytorch(export_folder, world_folder):
    done = run_without_torch(ENVIRONMENTS, export_folder, world_folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "auto"])
def test_play_runs_without_pytorch(export_folder, engine):
    done = run_without_torch(PLAY, export_folder, "--engine", engine)
    assert done.returncode == 0 and "3 frames in" in done.stdout, done.stderr
    assert done.stdout.startswith("Engine: ONNX Runtime on the CPU, ")


@pytest.mark.slow
def test_play_without_pytorch_says_what_it_needs(export_folder, world_folder):
    for arguments, expected in (
        ([world_folder], "dreamer_hf[export]"),
        ([world_folder, "--engine", "torch"], "dreamer_hf[torch]"),
        ([export_folder, "--engine", "torch"], "export for ONNX Runtime"),
        ([export_folder, "--record", "dream.mp4"], "dreamer_hf[video]"),
    ):
        done = run_without_torch(PLAY, *arguments)
        assert done.returncode == 2 and expected in done.stderr, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1

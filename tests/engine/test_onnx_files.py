"""The folder of an export: what is written, what is refused, and the cache of exports."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dreamer_hf.cli.application import dreamer, invoke
from dreamer_hf.modeling_dreamer_world import DreamerWorldModel
from dreamer_hf.onnx import Manifest, OnnxWorld
from dreamer_hf.onnx.export_cache import cached_export, export_key, load_or_export
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.onnx.graph_session import Graph, check_provider
from dreamer_hf.onnx.graph_weights import write_graph
from dreamer_hf.onnx.manifest import GraphEntry, file_sha256
from dreamer_hf.onnx.world_graphs import world_graphs
from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.start_frames import load_start_frames, save_start_frames
from dreamer_hf.worlds import shipped_world
from hub_stand_in import HubStandIn
from tiny import build_once, make_starts, make_world, tiny_world


@pytest.fixture(scope="session")
def kept_export(tmp_path_factory):
    def build(folder):
        export_onnx(make_world(), folder, starts=make_starts(), name="dots")

    return build_once(tmp_path_factory, "onnx-export", build)


@pytest.fixture
def export(kept_export, tmp_path):
    return shutil.copytree(kept_export, tmp_path / "export")


@pytest.fixture(scope="session")
def kept_world(tmp_path_factory):
    def build(folder):
        make_world().save_pretrained(folder)
        save_start_frames(folder, make_starts())

    return build_once(tmp_path_factory, "onnx-world", build)


def edit_manifest(folder, **changes):
    path = folder / "dreamer_onnx.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def run_python(code: str, *arguments, **variables) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_frame(engine) -> np.ndarray:
    rollout = engine.start_rollout(engine.starts[0], generator=[SeededNoise(1)])
    return rollout.step(np.float32([[100, 100]])).pixel_values


def test_the_engine_dreams_without_torch(export):
    code = """
import sys
from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.onnx.export_cache import load_or_export
world = load_or_export(sys.argv[1], threads=1)
rollout = world.start_rollout(world.starts.select([0, 1]))
assert rollout.step(world.space.rest[None].repeat(2, 0)).pixel_values.shape == (2, 3, 16, 16)
print([name for name in ("torch", "transformers", "onnx", "pyarrow", "cv2") if name in sys.modules])
"""
    assert run_python(code, export) == "[]\n"


def test_the_manifest_says_what_the_world_is(export):
    manifest = Manifest.read(export / "dreamer_onnx.json")
    assert (manifest.name, manifest.fps, manifest.frame_size) == ("dots", 20, [16, 16])
    assert manifest.actions["names"] == ["target_x", "target_y"] and manifest.actions["high"] == [512, 500]
    assert manifest.starts == {"file": "start_latents.safetensors", "count": 2, "context_frames": 3}
    assert 0 < manifest.check["max_pixel_error"] < 1e-3
    engine = OnnxWorld.from_pretrained(export)
    assert engine.space.names == ("target_x", "target_y") and engine.space.low.tolist() == [0, 10]


def test_limits_that_are_infinite_are_null(tmp_path):
    world = make_world(action_stats={"mean": [0.0, 0.0], "std": [1.0, 1.0]})
    manifest = export_onnx(world, tmp_path / "export", max_error=1.0)
    assert manifest.actions["low"] == [None, None] and manifest.actions["range_low"] == [-2, -2]
    space = OnnxWorld.from_pretrained(tmp_path / "export").space
    assert space.clip(np.float32([9, -9])).tolist() == [9, -9] and space.low.tolist() == [-2, -2]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share", "error"), [("float16", 0.75, 2e-2), ("int8", 0.75, 0.1)])
def test_smaller_weights_dream_almost_the_same(tmp_path, dtype, share, error):
    world, folders = tiny_world(), (tmp_path / "float32", tmp_path / dtype)
    for folder, limit in zip(folders, (1e-3, error)):
        assert export_onnx(world, folder, folder.name, make_starts(), max_error=limit).dtype == folder.name
    exact_size, small_size = ((folder / "dynamics.onnx").stat().st_size for folder in folders)
    assert small_size < share * exact_size
    exact, small = (first_frame(OnnxWorld.from_pretrained(folder)) for folder in folders)
    assert 0 < np.abs(exact - small).max() < error


@pytest.mark.slow
def test_an_export_that_is_off_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"is off by .* choose a more precise --dtype"):
        export_onnx(make_world(), tmp_path / "export", "int8", make_starts(), max_error=1e-7)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_large_graphs_are_in_their_own_file(tmp_path):
    entries = {}
    for name, graph in world_graphs(make_world()):
        path = tmp_path / f"{name}.onnx"
        data = write_graph(graph.model, path, "float32", max_bytes=10_000)
        assert [file.name for file in data] == [f"{name}.onnx.data"]
        digests = {file.name: file_sha256(file) for file in data}
        shape = graph.context_length, graph.head_dim, graph.rope_theta, graph.cache_heads, graph.reach
        entries[name] = GraphEntry(path.name, file_sha256(path), *shape, digests)
        assert Graph(tmp_path, entries[name]).inputs
    (tmp_path / "decoder.onnx.data").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"decoder.onnx.data is not the file that was exported"):
        Graph(tmp_path, entries["decoder"])


def test_save_onnx_of_a_bfloat16_world_leaves_it_unchanged(kept_world, tmp_path):
    from dreamer_hf import DreamerWorldModel

    world = DreamerWorldModel.from_pretrained(kept_world, dtype="bfloat16")
    world.save_onnx(tmp_path / "export")
    assert {parameter.dtype.itemsize for parameter in world.parameters()} == {2}
    assert len(OnnxWorld.from_pretrained(tmp_path / "export").starts) == 2


# Bad input


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not contain an exported world.*dreamer export onnx"):
        OnnxWorld.from_pretrained(tmp_path)


def test_a_later_version_is_refused(export):
    edit_manifest(export, format_version=3)
    with pytest.raises(ValueError, match="install a later dreamer_hf"):
        OnnxWorld.from_pretrained(export)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"graphs": {}},
        {"frame_size": [0, 16]},
        {"latents": {"num_tokens": "4", "dim": 8}},
        {"generation": {}},
        {"actions": {}},
        {"fps": -1},
        {"state": {"dim": 2}},
        {"cameras": ["only one"]},
        {"cameras": ["a", "b", "c"]},
    ],
)
def test_a_manifest_that_no_export_writes_is_refused(export, changes):
    edit_manifest(export, **changes)
    with pytest.raises(ValueError, match=r"is not the manifest of an exported world.*export it again"):
        OnnxWorld.from_pretrained(export)


def test_a_manifest_may_hold_more(export):
    edit_manifest(export, license="mit")
    assert OnnxWorld.from_pretrained(export).manifest.name == "dots"


def test_a_manifest_names_files_of_its_folder_only(export):
    graphs = json.loads((export / "dreamer_onnx.json").read_text())["graphs"]
    graphs["decoder"]["file"] = "../decoder.onnx"
    edit_manifest(export, graphs=graphs)
    with pytest.raises(ValueError, match="outside the folder"):
        OnnxWorld.from_pretrained(export)


@pytest.mark.parametrize("name", ["dynamics.onnx", "start_latents.safetensors", "start_frames.safetensors"])
def test_a_damaged_or_missing_file_is_refused(export, name):
    content = (export / name).read_bytes()
    (export / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="copy or download the folder again"):
        OnnxWorld.from_pretrained(export)
    (export / name).unlink()
    with pytest.raises(ValueError, match="copy or download the folder again"):
        OnnxWorld.from_pretrained(export)


def test_a_provider_that_is_not_there_names_its_package():
    with pytest.raises(ValueError, match="install onnxruntime-directml"):
        check_provider("directml")
    with pytest.raises(ValueError, match="expected one of cpu, cuda"):
        check_provider("tpu")


def test_bad_exports_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of float32"):
        export_onnx(make_world(), tmp_path / "export", "float64")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        export_onnx(make_world(), tmp_path)


# The Hub, the cache, the command


@pytest.mark.slow
def test_an_export_is_downloaded_with_its_manifest_first(export, tmp_path):
    code = """
import sys
from dreamer_hf.onnx import OnnxWorld
print(len(OnnxWorld.from_pretrained(sys.argv[1]).starts))
"""
    with HubStandIn("me/dots", "secret", "models") as hub:
        hub.files |= {file.name: file.read_bytes() for file in export.iterdir()}
        assert run_python(code, "me/dots", **hub.environment(tmp_path / "home")) == "2\n"
    names = [request.rpartition("/")[2].split(" ")[0] for request in hub.requests if "/resolve/" in request]
    assert names[0] == "dreamer_onnx.json" and "dynamics.onnx" in names


@pytest.mark.slow
def test_a_world_is_exported_once(kept_world, tmp_path):
    code = """
import sys
from dreamer_hf.onnx.export_cache import load_or_export
world = load_or_export(sys.argv[1], threads=1)
print(len(world.starts), "torch" in sys.modules)
"""
    arguments = code, kept_world
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0] for process in processes] == ["2 True\n"] * 2
    assert run_python(*arguments, HF_HOME=str(tmp_path)) == "2 False\n"
    assert len(list((tmp_path / "dreamer_hf" / "onnx").iterdir())) == 1


def test_a_damaged_export_in_the_cache_is_made_again(kept_world, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    folder = cached_export(kept_world)
    (folder / "decoder.onnx").write_bytes(b"damaged")
    assert load_or_export(kept_world).manifest.frame_size == [16, 16]
    assert cached_export(kept_world) == folder


def test_another_version_of_a_world_has_another_key(kept_world, tmp_path):
    changed = shutil.copytree(kept_world, tmp_path / "changed")
    (changed / "generation_config.json").write_text('{"num_inference_steps": 2}')
    assert export_key(kept_world) != export_key(changed)


def test_the_command_exports_a_world(kept_world, tmp_path, capsys):
    invoke(
        dreamer, ["export", "onnx", "--model", str(kept_world), "--output_dir", str(tmp_path / "export")], "dreamer"
    )
    assert "pixels differ from PyTorch's by at most" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "export").iterdir()) == [
        "decoder.onnx",
        "dreamer_onnx.json",
        "dynamics.onnx",
        "encoder.onnx",
        "start_frames.safetensors",
        "start_latents.safetensors",
    ]


@pytest.mark.slow
def test_the_shipped_world_keeps_its_dreams_with_8_bit_weights(tmp_path):
    world = DreamerWorldModel.from_pretrained(shipped_world("pusht-tiny")).eval()
    manifest = export_onnx(world, tmp_path / "export", "int8", load_start_frames("pusht-tiny"))
    assert manifest.check["mean_pixel_error"] < 3e-3
    assert sum(path.stat().st_size for path in (tmp_path / "export").glob("*.onnx")) < 9e6

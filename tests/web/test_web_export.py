"""The folder that `dreamer export web` writes, its upload as a Space, and what it refuses."""

import gzip
import hashlib
import json
import lzma
import os
import subprocess
import sys

import pytest
import yaml

from dreamer_hf.cli import main
from dreamer_hf.onnx.manifest import Manifest
from dreamer_hf.web import browser_runtime
from dreamer_hf.web.web_export import export_web
from dreamer_hf.web.web_options import WebOptions
from hub_stand_in import HubStandIn
from tiny import tiny_world

pytestmark = pytest.mark.slow
SPACE, TOKEN = "me/my-world", "secret"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_that_the_page_loads_is_there_and_is_the_right_one(tiny_site, tmp_path):
    files = contents(tiny_site)
    site = json.loads(files["site.json"])
    for name, entry in site["files"].items():
        assert len(files[name]) == entry["size"] and hashlib.sha256(files[name]).hexdigest() == entry["sha256"]
    manifest = tmp_path / "dreamer_onnx.json"
    manifest.write_bytes(gzip.decompress(files[site["world"]["manifest"]]))
    manifest = Manifest.read(manifest)
    for graph in ("dynamics", "decoder"):
        content = gzip.decompress(files[site["world"][graph]])
        assert hashlib.sha256(content).hexdigest() == manifest.graphs[graph].sha256
    for build in site["runtime"].values():
        assert build["module"] in files and gzip.decompress(files[build["binary"]]).startswith(b"\0asm")
    assert not any("encoder" in name or "server_connection" in name for name in files)
    assert b'name="dreamer-site"' in files["index.html"] and b"MIT License" in files["onnxruntime/LICENSE.txt"]
    assert site["keys"] == [["left", "right"], ["up", "down"]]


def test_the_shipped_world_is_a_small_download(shipped_site):
    sizes = {name: len(content) for name, content in contents(shipped_site).items()}
    assert sum(size for name, size in sizes.items() if name.startswith("world/")) < 16e6
    assert sum(size for name, size in sizes.items() if "asyncify" not in name) < 30e6


def test_a_space_gets_the_page_and_nothing_else_remains(tiny_folder, tmp_path):
    command = [sys.executable, "-m", "dreamer_hf", "export", "web", "--model", tiny_folder, "--dtype", "float32"]
    command += ["--output_dir", tmp_path / "site", "--push_to_space", SPACE, "--title", 'Dots & "lines"']
    with HubStandIn(SPACE, TOKEN, "spaces") as hub:
        hub.files["world/old.onnx.gzipped"] = b"of an earlier export"
        environment = os.environ | hub.environment(tmp_path / "home")
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"uploaded to {hub.address}/spaces/{SPACE}"
        assert (hub.created["type"], hub.created["sdk"]) == ("space", "static")
        uploaded = {name: content for name, content in hub.files.items() if name != ".gitattributes"}
        assert uploaded == contents(tmp_path / "site")
        assert not any(TOKEN.encode() in content for content in uploaded.values())
    card = yaml.safe_load(uploaded["README.md"].decode().split("---")[1])
    assert (card["sdk"], card["app_file"], card["title"]) == ("static", "index.html", 'Dots & "lines"')
    assert card["custom_headers"] == {
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "cross-origin",
    }
    assert "models" not in card and "Dots &amp; &quot;lines&quot;" in uploaded["index.html"].decode()


PUSH = """
import sys
from pathlib import Path
from dreamer_hf.web.space import push_to_space
push_to_space(Path(sys.argv[1]), sys.argv[2])
"""


def test_a_refused_upload_says_where_the_page_is(tiny_site, tmp_path):
    with HubStandIn(SPACE, TOKEN, "spaces") as hub:
        environment = os.environ | hub.environment(tmp_path / "home", token="wrong")
        command = [sys.executable, "-c", PUSH, tiny_site, SPACE]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert hub.files == {}
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("OSError: me/my-world cannot be written") and f"the page is in {tiny_site}" in sentence


@pytest.mark.parametrize("case", ["no start frames", "wrong name", "offline", "not empty", "no world"])
def test_what_cannot_be_exported_is_refused_in_one_sentence(case, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder, output = tmp_path / "world", tmp_path / "site"
    expected = {
        "no start frames": "carries no start_frames.safetensors",
        "wrong name": "takes the name of a Space",
        "offline": "cannot be opened for --push_to_space",
        "not empty": "is not empty",
        "no world": "cannot load a world",
    }[case]
    if case == "no start frames":
        tiny_world().save_pretrained(folder)
    elif case == "not empty":
        output.mkdir()
        (output / "mine").touch()
    space = {"wrong name": "a/b/c", "offline": SPACE}.get(case)
    model = folder if case in ("no start frames", "no world") else tiny_folder
    with pytest.raises((ValueError, OSError), match=expected) as error:
        export_web(WebOptions(output_dir=str(output), model=str(model), push_to_space=space))
    assert len(str(error.value).splitlines()) == 1
    assert not output.exists() or case == "not empty"
    assert [path.name for path in tmp_path.glob(".site*")] == []


def test_the_runtime_is_the_pinned_one_and_a_damaged_file_is_refused(tmp_path, monkeypatch):
    assert browser_runtime.runtime_version() == "1.30.0"
    builds = browser_runtime.runtime_builds()
    assert set(builds) == {"wasm", "webgpu"}
    assert builds["wasm"].binary.content().startswith(b"\0asm")
    monkeypatch.setattr(browser_runtime, "FOLDER", tmp_path)
    path = tmp_path / f"{builds['wasm'].module.name}.xz"
    for damage in (b"", lzma.compress(b"another module")):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"install dreamer_hf again\.$"):
            builds["wasm"].module.content()


def test_the_help_shows_the_options(capsys):
    main(arguments=["export", "web", "--help"])
    assert "--push_to_space" in capsys.readouterr().out


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="float64"):
        export_web(WebOptions(output_dir=str(tmp_path / "site"), dtype="float64"))

"""The worlds that ship with the package, and their names."""

import subprocess
import sys

import pytest
import torch

from dreamer_hf.loading import load_world
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.weight_files import verify_weights
from dreamer_hf.worlds import resolve_model, shipped_world, shipped_worlds


def test_a_shipped_world_loads_by_its_name():
    assert "pusht-tiny" in shipped_worlds()
    world, starts = load_world("pusht-tiny", device="cpu"), load_start_frames("pusht-tiny")
    starts.check_fits(world.config)
    assert world.device == torch.device("cpu") and (shipped_world("pusht-tiny") / "README.md").is_file()


@pytest.mark.parametrize("name", shipped_worlds())
def test_the_weights_of_every_shipped_world_are_those_that_were_saved(name):
    assert verify_weights(shipped_world(name)), "it has no digest"


def test_a_local_folder_comes_before_a_shipped_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_model("pusht-tiny") == str(shipped_world("pusht-tiny"))
    (tmp_path / "pusht-tiny").mkdir()
    assert resolve_model("pusht-tiny") == "pusht-tiny"
    assert resolve_model("me/my-world") == "me/my-world"


def test_an_unknown_name_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"shipped world \(.*pusht-tiny.*\), got 'pusht-huge'"):
        shipped_world("pusht-huge")


def test_finding_a_world_imports_no_torch():
    code = (
        "import sys; from dreamer_hf.worlds import shipped_world; shipped_world(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Loading a world to play it: with weights as 8-bit integers, too."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamer_hf.configuration_base import DIGESTS_KEY
from dreamer_hf.loading import choose_device, load_world
from tiny import random_world


@pytest.fixture
def folder(tmp_path):
    random_world(action_dim=2).save_pretrained(tmp_path)
    return str(tmp_path)


def dream(world, count=4):
    """(count,3,H,W) frames of one and the same noise."""
    generator = torch.Generator().manual_seed(0)
    rollout = world.start_rollout(torch.full((1, 3, 3, 32, 32), 0.5), generator=generator)
    return torch.cat([rollout.step([[1.0, -1.0]]).pixel_values for _ in range(count)])


def bytes_of_linear_weights(world):
    weights = [part.weight for part in world.modules() if isinstance(part, torch.nn.Linear)]
    return sum(
        sum(getattr(w, name).nbytes for name in ("qdata", "scale") if hasattr(w, name)) or w.nbytes for w in weights
    )


def test_int8_weights_dream_nearly_the_same_in_less_memory(folder):
    exact, small = load_world(folder, "cpu"), load_world(folder, "cpu", int8=True)
    error = (dream(small) - dream(exact)).square().mean()
    assert 0 < error < 1e-4  # 40 dB
    # Narrow layers: their scales weigh, too.
    assert bytes_of_linear_weights(small) < 0.6 * bytes_of_linear_weights(exact)


def test_int8_says_what_it_needs(folder, monkeypatch):
    with pytest.raises(ValueError, match="leave out --adapter"):
        load_world(folder, "cpu", adapter=folder, int8=True)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ValueError, match=r"pip install 'dreamer_hf\[int8\]'"):
        load_world(folder, "cpu", int8=True)


def test_a_device_that_is_not_there_is_refused_in_one_sentence():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="cannot use --device quantum"):
        choose_device("quantum")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch finds no NVIDIA GPU here"):
            choose_device("cuda:0")


def cut_off(weights):
    weights.write_bytes(weights.read_bytes()[:-1000])


def flip_a_bit(weights):
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.write_bytes(data)


def replace_by_foreign_weights(weights):
    save_file({"a": torch.zeros(1)}, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "digest"),
    [
        (cut_off, True),
        (cut_off, False),
        (flip_a_bit, True),
        (replace_by_foreign_weights, True),
        (replace_by_foreign_weights, False),
    ],
)
def test_a_world_that_is_not_whole_is_refused_in_one_sentence(folder, damage, digest):
    if not digest:  # as saved before there were digests
        config = json.loads((Path(folder) / "config.json").read_text())
        del config[DIGESTS_KEY]
        (Path(folder) / "config.json").write_text(json.dumps(config))
    damage(Path(folder) / "model.safetensors")
    with pytest.raises(ValueError, match="cannot load a world from") as caught:
        load_world(folder, "cpu")
    assert "\n" not in str(caught.value)

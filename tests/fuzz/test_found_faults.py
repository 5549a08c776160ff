"""Faults that fuzzing found: each input is refused in one sentence now, or read as it was meant."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamer_hf import DreamerDynamicsConfig
from dreamer_hf.adapters import load_adapter
from dreamer_hf.data.action_data import read_action_table
from dreamer_hf.data.files import first_line
from dreamer_hf.data.shards import ShardIndex
from dreamer_hf.loading import load_world
from dreamer_hf.losses import LossNormalizer
from dreamer_hf.published_checkpoints import PublishedReader, read_state_dict
from dreamer_hf.start_frames import load_start_frames, save_start_frames
from fuzz.training_formats import write_adapter
from tiny import make_starts, make_world


def test_a_changed_start_frame_is_noticed_and_old_files_load(tmp_path):
    path = save_start_frames(tmp_path, make_starts())
    assert torch.equal(load_start_frames(tmp_path).actions, make_starts().actions)
    tensors = load_file(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its digest differs"):
        load_start_frames(tmp_path)
    save_file(tensors, path, {"format": "pt"})
    assert torch.equal(load_start_frames(tmp_path).pixel_values_videos, make_starts().pixel_values_videos)


def test_a_changed_weight_of_a_published_file_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"model": {"a": torch.full((1000,), 0.5)}}, path)
    assert read_state_dict(path)["a"].sum() == 500
    content = path.read_bytes()
    where = content.index(torch.full((1000,), 0.5).numpy().tobytes())
    path.write_bytes(content[: where + 40] + b"\x01" + content[where + 41 :])
    with pytest.raises(ValueError, match="can be read safely") as refusal:
        read_state_dict(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("tensor", [torch.empty(2, 2, device="meta"), torch.ones(2, 2).to_sparse()])
def test_published_tensors_without_plain_values_are_named(tensor):
    reader = PublishedReader("a.pt", {"a": tensor})
    reader.take("a", 2, 2)
    with pytest.raises(ValueError, match="a without plain values"):
        reader.finish()


@pytest.mark.parametrize("values", [{"id2label": 3}, {"dtype": ["", 3]}])
def test_fields_of_the_base_class_of_a_wrong_type_are_refused(values):
    with pytest.raises(ValueError, match="invalid dreamer_dynamics config"):
        DreamerDynamicsConfig.from_dict(values)


def test_a_model_type_that_is_a_list_is_refused(tmp_path):
    make_world().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": []}))
    with pytest.raises(ValueError, match="cannot load a world"):
        load_world(str(tmp_path), "cpu")


def test_a_member_of_the_index_that_is_not_an_array_is_refused(tmp_path):
    index = ShardIndex(np.zeros(1, np.int32), np.ones(1, np.int32), np.zeros(1, np.int64), np.ones(1, bool))
    index.write(tmp_path)
    path = tmp_path / "index.npz"
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"lengths.npy": b""}).items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"index\.npz"):
        ShardIndex.read(path)


@pytest.mark.parametrize(
    ("text", "names"), [('"left; up",y\n1.5,2\n', ["left; up", "y"]), ('"left, up";y\n1,5;2\n', ["left, up", "y"])]
)
def test_names_of_columns_may_hold_separators(text, names, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    actions, found = read_action_table(path)
    assert actions.tolist() == [[1.5, 2]] and found == names


def test_a_damaged_header_of_an_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 2)))
    for damage in (b"\x00", b"'", b"\x04"):
        content = path.read_bytes()
        path.write_bytes(content[:12] + damage + content[13:])
        with pytest.raises(ValueError, match="does not hold a table of numbers"):
            read_action_table(path)


def test_a_message_does_not_quote_a_whole_file():
    assert len(first_line(ValueError("a" * 10_000))) < 600


@pytest.mark.parametrize(
    "scale",
    [None, [], {}, {"mean_square": 1.0}, {"mean_square": "1", "num_observed": 1}, {"mean_square": float("nan")}],
)
def test_a_damaged_scale_of_a_loss_term_is_refused(scale):
    normalizer = LossNormalizer({"mse": 1.0})
    normalizer.load_state_dict({"mse": {"mean_square": 1.0, "num_observed": 1}})
    with pytest.raises(ValueError, match="no usable scale of the loss term mse"):
        normalizer.load_state_dict({"mse": scale})


@pytest.mark.parametrize(
    "values",
    [
        {"megatron_config": {}, "megatron_core": "this"},
        {"auto_mapping": {"parent_library": "this", "base_model_class": "a"}},
        {"target_modules": 0.5},
        {"r": "two"},
    ],
)
def test_an_adapter_imports_no_module_that_its_config_names(values, tmp_path, capsys):
    write_adapter(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ValueError, match="cannot load an adapter") as refusal:
        load_adapter(make_world(), tmp_path / "adapter")
    assert "\n" not in str(refusal.value) and "Zen" not in capsys.readouterr().out

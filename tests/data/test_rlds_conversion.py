"""On real fixtures: a dataset that tensorflow-datasets wrote with TensorFlow, as tfrecord and as array_record."""

import logging
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.rlds_source import RldsSource, _masked_crc

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rlds"
IMAGE = "observation/image"


def expected_step(episode, step):
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 10 * episode, 5 * step, 200
    image[step] = 255
    return image, np.float32([episode, step, episode + step / 10])


def items(folder):
    dataset = ShardDataset(folder, None, split="all", action_offset=0)
    return [dataset.episode(i) for i in range(dataset.num_episodes)]


def identity(item):
    """The episode that the fixture wrote into its first action."""
    return int(item["actions"][0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_every_step_of_every_split_without_tensorflow(tmp_path, file_format):
    source = RldsSource(FIXTURES / file_format, "success+failure", IMAGE, fps=10)
    convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=4, target_fps=5), JobOptions(num_workers=2))
    found = items(tmp_path / "out")
    assert sorted(map(identity, found)) == list(range(9))
    for item in found:
        episode = identity(item)
        steps = [expected_step(episode, step) for step in range(0, 5 + episode % 4, 2)]
        np.testing.assert_array_equal(item["pixel_values_videos"].permute(0, 2, 3, 1).numpy(), [s[0] for s in steps])
        np.testing.assert_array_equal(item["actions"].numpy(), [s[1] for s in steps])
    assert "tensorflow" not in sys.modules


def test_both_formats_and_split_expressions_agree(tmp_path):
    for file_format in ("tfrecord", "array_record"):
        whole = convert(
            RldsSource(FIXTURES / file_format, "success", IMAGE), tmp_path / file_format, ConversionOptions()
        )
        part = RldsSource(FIXTURES / file_format, "success[50%:]", IMAGE, episodes="1:")
        part = convert(part, tmp_path / f"{file_format}_part", ConversionOptions())
        assert list(map(identity, items(part))) == list(map(identity, items(whole)))[4:]


def test_nested_array_images_side_by_side_and_short_episodes_dropped(tmp_path):
    source = RldsSource(FIXTURES / "tfrecord", "success", f"{IMAGE},observation/cameras/wrist", tile_cameras=True)
    found = items(convert(source, tmp_path / "out", ConversionOptions(min_episode_length=7)))
    assert sorted(map(identity, found)) == [2, 3] and found[0]["pixel_values_videos"].shape[1:] == (3, 16, 24 + 16)
    wrist = found[0]["pixel_values_videos"][3, :, 5, 30].tolist()
    assert wrist == [identity(found[0]), 3, 99]


def corrupt(tmp_path, position):
    """A copy in which record 1 of the first file is damaged: in its header or in its content."""
    folder = shutil.copytree(FIXTURES / "tfrecord", tmp_path / "copy")
    path = folder / "tiny_rlds-success.tfrecord-00000-of-00002"
    content = bytearray(path.read_bytes())
    second = 16 + struct.unpack("<Q", content[:8])[0]
    content[second + position] ^= 1
    path.write_bytes(content)
    return folder


@pytest.mark.parametrize(("position", "lost"), [(2, 2), (300, 1)])
def test_corrupt_records_are_named_or_skipped_and_counted(tmp_path, position, lost, caplog):
    folder = corrupt(tmp_path, position)
    with pytest.raises(ValueError, match=r"success.tfrecord-00000-of-00002, record 1 is corrupt"):
        convert(RldsSource(folder, "success", IMAGE), tmp_path / "refused", ConversionOptions())
    assert not list(tmp_path.glob("refused/shard*"))
    with caplog.at_level(logging.WARNING):
        found = items(
            convert(RldsSource(folder, "success", IMAGE, skip_corrupt=True), tmp_path / "out", ConversionOptions())
        )
    assert len(found) == 6 - lost and f"skipped {lost} corrupt records" in caplog.text


def change_record(tmp_path, number, change):
    """A copy in which `change(features)` has changed a record of the first file, under valid checksums."""
    from tensorflow_datasets.proto import tf_example_generated_pb2

    folder = shutil.copytree(FIXTURES / "tfrecord", tmp_path / "copy")
    path = folder / "tiny_rlds-success.tfrecord-00000-of-00002"
    content, records = path.read_bytes(), []
    while content:
        length = struct.unpack("<Q", content[:8])[0]
        records.append(content[12 : 12 + length])
        content = content[16 + length :]
    example = tf_example_generated_pb2.Example.FromString(records[number])
    change(example.features.feature)
    records[number] = example.SerializeToString()
    frames = [(struct.pack("<Q", len(record)), record) for record in records]
    path.write_bytes(b"".join(part + struct.pack("<I", _masked_crc(part)) for frame in frames for part in frame))
    return folder


def break_image(tmp_path, step):
    """A copy in which one image of record 1 of the first file is broken."""

    def cut(features):
        images = features["steps/observation/image"].bytes_list.value
        images[step] = images[step][:40]

    return change_record(tmp_path, 1, cut)


def test_images_are_decoded_one_by_one_and_a_broken_one_drops_its_episode(tmp_path, caplog, monkeypatch):
    source = RldsSource(break_image(tmp_path, step=3), "success", IMAGE)
    first, second = (next(source.read([number], 1)) for number in (0, 1))
    assert len(list(first.frames)) == len(first.actions())
    assert [next(second.frames).shape for _ in range(3)] == [(16, 24, 3)] * 3  # before the broken one is looked at
    with pytest.raises(ValueError, match="episode 1, step 3"):
        next(second.frames)
    with pytest.raises(ValueError, match="episode 1, step 3"):
        convert(source, tmp_path / "refused", ConversionOptions())
    monkeypatch.setattr(
        "dreamer_hf.data.frame_array.CHUNK_LENGTH", 2
    )  # so that chunks of the dropped episode are written
    options = ConversionOptions()
    whole = items(convert(RldsSource(FIXTURES / "tfrecord", "success", IMAGE), tmp_path / "whole", options))
    with caplog.at_level(logging.INFO):
        left = convert(replace(source, skip_corrupt=True), tmp_path / "left", options)
    assert "skipped 1 corrupt records" in caplog.text and "wrote 5 of 6 episodes" in caplog.text
    assert ShardDataset(left, None, split="all").source_episodes.tolist() == [0, 2, 3, 4, 5]
    for found, expected in zip(items(left), [whole[0], *whole[2:]], strict=True):
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has: failure, success"),
        (
            {"split": "success"},
            "choose images with --image_key, one or several of: "
            "observation/cameras/wrist, observation/image",
        ),
        ({"split": "success", "image_key": "image"}, "steps have no images 'image'"),
        ({"split": "success", "image_key": IMAGE, "action_key": "act"}, "--action_key can be: action, "),
    ],
)  # fmt: skip
def test_unknown_names_are_answered_with_those_that_exist(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        RldsSource(FIXTURES / "tfrecord", **arguments)


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_info\.json"):
        RldsSource(tmp_path)
    folder = shutil.copytree(FIXTURES / "tfrecord", tmp_path / "copy")
    (folder / "tiny_rlds-success.tfrecord-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="00001-of-00002 is missing"):
        RldsSource(folder, "success", IMAGE)


def test_deep_images_are_refused_not_cut_to_8_bits(tmp_path):
    import cv2

    def deepen(features):
        images = features["steps/observation/image"].bytes_list.value
        images[1] = cv2.imencode(".png", np.full((16, 24, 3), 500, np.uint16))[1].tobytes()

    source = RldsSource(change_record(tmp_path, 0, deepen), "success", IMAGE)
    with pytest.raises(ValueError, match=r"episode 0, step 1: the image has values of type uint16 \(a depth map\?\)"):
        convert(source, tmp_path / "out", ConversionOptions())


def test_displacements_are_added_up_and_actions_joined(tmp_path):
    source = RldsSource(FIXTURES / "tfrecord", "success", IMAGE, "action,is_last", fps=10)
    assert source.action_dim == 4 and source.action_names == ["action.0", "action.1", "action.2", "is_last"]
    options = ConversionOptions(target_fps=5, displacement_action_dims=(1,))
    for item in items(convert(source, tmp_path / "out", options)):
        episode, length = identity(item), 5 + identity(item) % 4
        steps = range(0, length, 2)
        sums = [sum(range(step, min(step + 2, length))) for step in steps]  # component 1 is the number of the step
        expected = [(episode, moved, step == length - 1) for step, moved in zip(steps, sums, strict=True)]
        np.testing.assert_array_equal(item["actions"][:, [0, 1, 3]], expected)


def test_texts_are_not_offered_as_images():
    from dreamer_hf.data.sources.rlds_source import _may_be_image

    class Text:
        shape, np_dtype = (), np.object_

    class Tensor(Text):
        pass

    assert not _may_be_image(Text()) and _may_be_image(Tensor())


def test_git_lfs_pointers_are_recognized(tmp_path):
    folder = shutil.copytree(FIXTURES / "tfrecord", tmp_path / "copy")
    path = folder / "tiny_rlds-success.tfrecord-00001-of-00002"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    source = RldsSource(folder, "success", IMAGE)
    with pytest.raises(ValueError, match="00001-of-00002 is a Git LFS pointer"):
        convert(source, tmp_path / "out", ConversionOptions())
    assert not (tmp_path / "out").exists()

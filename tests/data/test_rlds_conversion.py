"""On real fixtures: a dataset that tensorflow-datasets wrote with TensorFlow, as tfrecord and as array_record."""

import logging
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.converting import convert
from dreamer_hf.data.rlds_source import RldsSource

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


def test_nested_array_pictures_side_by_side_and_short_episodes_dropped(tmp_path):
    source = RldsSource(FIXTURES / "tfrecord", "success", f"{IMAGE},observation/cameras/wrist")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has: failure, success"),
        ({"split": "success"}, "choose pictures with --image_key, one or several of: observation/cameras/wrist, observation/image"),
        ({"split": "success", "image_key": "image"}, "steps have no pictures 'image'"),
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

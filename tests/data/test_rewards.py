"""Rewards from their source to the items of windows: those of datasets, and labels next to the shards."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot_writer import FRAMES, LENGTHS, OWNERS, write_lerobot

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.labels import Labels, data_fingerprint, label_path, read_labels, write_labels
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from dreamer_hf.data.sources.rlds_source import RldsSource

RLDS = Path(__file__).parents[1] / "fixtures" / "rlds" / "tfrecord"
ONE = {"shape": [1], "names": None}
FEATURES = {
    "next.reward": ONE | {"dtype": "float32"},
    "next.done": ONE | {"dtype": "bool"},
    "task_index": ONE | {"dtype": "int64"},
}
COLUMNS = {
    "next.reward": pa.array((10 * OWNERS + FRAMES).astype(np.float32)),
    "next.done": pa.array(FRAMES == 3),
    "task_index": pa.array((OWNERS == 1).astype(np.int64)),
}


def source(root, tasks=("push", "pull"), **chosen):
    write_lerobot(root, columns=COLUMNS, features=FEATURES)
    if tasks:
        table = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": list(tasks)})
        pq.write_table(table, root / "meta" / "tasks.parquet")
    return LeRobotSource(root, "tests/written", **{"reward_key": "next.reward"} | chosen)


def shards(source, tmp_path, **options):
    return ShardDataset(convert(source, tmp_path / "shards", ConversionOptions(**options)), None, split="all")


def test_rewards_belong_to_the_frame_that_the_action_led_to(tmp_path):
    data = shards(source(tmp_path / "lerobot", tasks=None, terminal_key="next.done"), tmp_path)
    labels = data.recorded_labels()
    assert labels.task_names == ("next.reward",)
    assert np.isnan(labels.rewards[0][0, 0])
    # The frame after the last action was not recorded: the last one takes its reward.
    assert labels.rewards[0][1:, 0].tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert np.flatnonzero(labels.terminals[1]).tolist() == [4]
    item = data.with_labels(labels).with_window(4)[0]
    assert item["rewards"][:, 0].tolist() == [0, 0, 1, 2] and item["rewards"].dtype == torch.float32
    assert item["reward_mask"][:, 0].tolist() == [False, True, True, True]
    assert item["continues"].tolist() == [1, 1, 1, 1]


def test_each_task_of_a_dataset_has_its_column(tmp_path):
    labels = shards(source(tmp_path / "lerobot"), tmp_path).recorded_labels()
    assert labels.task_names == ("push", "pull") and labels.terminals is None
    known = [(~np.isnan(part[1:])).all(axis=0).tolist() for part in labels.rewards]
    assert known == [[True, False], [False, True], [True, False]]
    assert labels.rewards[1][1:, 1].tolist() == [10, 11, 12, 14]


def test_rewards_of_left_out_frames_are_added_up(tmp_path):
    found = source(tmp_path / "lerobot", tasks=None, terminal_key="next.done")
    data = shards(found, tmp_path, target_fps=found.fps / 2)
    (recorded, *_) = data.recorded_rewards(0)
    assert recorded.rewards[:, 0].tolist() == [0 + 1, 2 + 3, 4 + 5, 6 + 7]
    assert recorded.terminals.tolist() == [False, True, False, False]


def test_shards_without_rewards_have_none(tmp_path):
    data = shards(source(tmp_path / "lerobot", reward_key=None), tmp_path)
    assert data.recorded_labels() is None and "rewards" not in data.with_window(4)[0]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"reward_key": "reward"}, "--reward_key can be: next.reward, next.done"),
        ({"reward_key": "action"}, "of one number per frame"),
        ({"reward_key": None, "terminal_key": "next.done"}, "give --reward_key as well"),
    ],
)
def test_unknown_rewards_are_answered_with_those_that_exist(tmp_path, chosen, message):
    with pytest.raises(ValueError, match=message):
        source(tmp_path / "lerobot", **chosen)


def test_rewards_of_rlds(tmp_path):
    found = RldsSource(RLDS, "success", "observation/image", reward_key="reward", fps=5)
    assert found.rewards.terminal_key == "is_terminal"
    labels = shards(found, tmp_path).recorded_labels()
    assert labels.task_names == ("reward",) and labels.terminals is not None
    assert all(np.isnan(part[0]).all() and np.isfinite(part[1:]).all() for part in labels.rewards)
    with pytest.raises(ValueError, match="--reward_key can be"):
        RldsSource(RLDS, "success", "observation/image", reward_key="rewards", fps=5)


def labeled(tmp_path):
    data = shards(source(tmp_path / "lerobot", reward_key=None), tmp_path)
    rewards = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) for n in LENGTHS]
    rewards[1][:] = np.nan
    labels = Labels(("a", "b"), rewards, [part > 3 for part in rewards])
    path = label_path(data.data_dir, "mine")
    write_labels(path, labels, data_fingerprint(data))
    return data, path, labels


def test_labels_come_back_as_they_were_written(tmp_path):
    data, path, labels = labeled(tmp_path)
    assert path == data.data_dir / "labels" / "mine.npz"
    found = read_labels(path, data)
    assert found.task_names == labels.task_names
    for name in ("rewards", "successes"):
        for ours, theirs in zip(getattr(found, name), getattr(labels, name), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not data.with_labels(found).episode(1)["reward_mask"].any()
    assert found.select(["b"]).rewards[0][:, 0].tolist() == labels.rewards[0][:, 1].tolist()


def test_damaged_labels_and_those_of_other_data_are_refused(tmp_path):
    data, path, labels = labeled(tmp_path)
    write_labels(path, labels, "something else")
    with pytest.raises(ValueError, match="belongs to other episodes"):
        read_labels(path, data)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        read_labels(path, data)
    with pytest.raises(FileNotFoundError, match="make it with dreamer label"):
        read_labels(label_path(data.data_dir, "none"), data)
    with pytest.raises(ValueError, match="have other episodes"):
        data.with_labels(Labels(("a",), [np.zeros((3, 1), np.float32)], [np.zeros((3, 1), bool)]))


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "no frame has a reward for the task 'a'"), (0.5, "is 0.5 in every frame")]
)
def test_labels_from_which_nothing_can_be_learned_are_refused(value, message):
    rewards = [np.full((4, 1), value, np.float32)]
    with pytest.raises(ValueError, match=message):
        Labels(("a",), rewards, [rewards[0] > 1]).check_useful()

"""States in shards: from every source, with their statistics, and refused where they are not numbers."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from lerobot_writer import FRAMES, OWNERS, write_lerobot

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.lerobot_windows import LeRobotWindows
from dreamer_hf.data.mixture import MixtureDataset
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardMetadata, open_shard, shard_name
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource
from dreamer_hf.data.sources.table_source import TableColumns, TableSource
from dreamer_hf.start_frames import starts_from_dataset
from tiny import TINY_REPO_ID, tiny_episodes, write_moving_square

STATES = np.stack([FRAMES / 10, OWNERS, 5.0 + 0 * FRAMES], axis=1).astype(np.float32)


def state_column(values=STATES):
    return pa.array([None if row is None else list(row) for row in values], pa.list_(pa.float32()))


def write_with_state(root, values=STATES, key="observation.state"):
    feature = {key: {"dtype": "float32", "shape": [3], "names": ["lift", "turn", "rest"], "unit": "m"}}
    return write_lerobot(root, {key: state_column(values)}, feature)


def same_statistics(ours, theirs):
    return ours.keys() == theirs.keys() and all(np.allclose(ours[name], theirs[name]) for name in ours)


def test_a_state_of_lerobot_is_converted_with_names_units_and_statistics(tmp_path):
    root = write_with_state(tmp_path / "set")
    data = ShardDataset(
        convert(LeRobotSource(root, "me/set"), tmp_path / "out", ConversionOptions()), None, split="all"
    )
    assert data.state_dim == 3 and data.state_names == ["lift", "turn", "rest"] and data.state_units == ["m"] * 3
    assert data.metadata.state_key == "observation.state"
    for name, value in data.state_stats.items():
        if name != "count":
            np.testing.assert_allclose(value, getattr(STATES.astype(np.float64), name)(axis=0), atol=1e-6)
    for position in range(data.num_episodes):
        item = data.episode(position)
        np.testing.assert_array_equal(item["states"].numpy(), STATES[position == OWNERS])
        assert item["state_mask"].all()
    window = data.window(0, 3, 4)  # aligned with the frames, whatever the alignment of actions
    np.testing.assert_array_equal(window["states"][:, 0].numpy(), np.float32([0.3, 0.4, 0.5, 0.6]))


def test_states_follow_the_kept_frames_and_equal_those_read_directly(tmp_path):
    root = write_with_state(tmp_path / "set")
    options = ConversionOptions(target_fps=5)
    data = ShardDataset(convert(LeRobotSource(root, "me/set"), tmp_path / "out", options), None, split="all")
    direct = LeRobotWindows(root, None, split="all", options=options)
    assert direct.state_names == data.state_names and same_statistics(direct.state_stats, data.state_stats)
    for position in range(data.num_episodes):
        states = data.episode(position)["states"]
        np.testing.assert_array_equal(states.numpy(), STATES[position == OWNERS][::2])
        assert torch.equal(states, direct.episode(position)["states"])


def test_what_lerobot_itself_writes(tiny_shards):
    data = ShardDataset(tiny_shards, None, split="all")
    assert data.state_names == ["x", "y"]
    for position, (positions, _) in enumerate(tiny_episodes()):
        np.testing.assert_array_equal(data.episode(position)["states"].numpy(), positions)


def test_the_state_can_be_chosen_joined_or_left_out(tmp_path):
    root = write_with_state(tmp_path / "set")
    source = LeRobotSource(root, "me/set", state_key="observation.state,action")
    assert source.state.dim == 5 and source.state.names[:3] == ["lift", "turn", "rest"]
    data = ShardDataset(convert(source, tmp_path / "joined", ConversionOptions()), None, split="all")
    np.testing.assert_array_equal(data.episode(1)["states"][:, 3].numpy(), FRAMES[OWNERS == 1])
    source = LeRobotSelection(str(root), state_key="none").open()
    data = ShardDataset(convert(source, tmp_path / "none", ConversionOptions()), None, split="all")
    assert data.state_dim == 0 and "states" not in data.episode(0)
    with open_shard(tmp_path / "none" / shard_name(0)) as file:
        assert not [name for name in file if "state" in name] and not [name for name in file.attrs if "state" in name]
    assert "state_key" not in data.metadata.conversion
    with pytest.raises(ValueError, match="no 'pose' to take the state from; choose none, or some of: action"):
        LeRobotSource(root, "me/set", state_key="pose")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([np.nan, 0, 0], "episode 1 has a state at frame 2 that is not a number or infinite"),
        (None, "the state of episode 1 at frame 2 is missing"),
        ([1.0], "holds states that are not 3 numbers wide"),
    ],
)
def test_states_that_are_not_numbers_are_refused(tmp_path, value, message):
    values = list(STATES)
    values[np.flatnonzero(OWNERS == 1)[2]] = value
    root = write_with_state(tmp_path / "set", values)
    with pytest.raises(ValueError, match=message):
        convert(LeRobotSource(root, "me/set"), tmp_path / "out", ConversionOptions())


def test_tables_have_a_state_column(tmp_path):
    rows = len(FRAMES)
    images = [np.full((8, 8, 3), 9, np.uint8)] * rows
    columns = {"image": images, "episode": OWNERS, "pose": list(STATES), "grip": FRAMES.astype(np.float32)}
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "episode": datasets.Value("int64"),
            "pose": datasets.List(datasets.Value("float32")),
            "grip": datasets.Value("float32"),
        }
    )
    table = datasets.Dataset.from_dict(columns, features)
    source = TableSource(table, TableColumns("image", "grip", "episode", "pose,grip"))
    data = ShardDataset(convert(source, tmp_path / "out", ConversionOptions()), None, split="all")
    expected = np.concatenate([STATES, FRAMES[:, None]], axis=1)[OWNERS == 2]
    np.testing.assert_array_equal(data.episode(2)["states"].numpy(), expected.astype(np.float32))
    with pytest.raises(ValueError, match="no such column as 'posture'; --state_column can be: "):
        TableSource(table, TableColumns("image", "grip", "episode", "posture"))


def test_an_episode_without_a_state_has_a_mask_of_false(tmp_path):
    data = ShardDataset(write_moving_square(tmp_path / "set", with_state=True), None, split="all")
    first, last = data.episode(0), data.episode(data.num_episodes - 1)
    assert first["state_mask"].all() and first["states"].any()
    assert not last["state_mask"].any() and not last["states"].any()
    starts = starts_from_dataset(data, num_starts=8, context_frames=3)
    assert starts.state_mask.any(dim=1).tolist() == [True] * 5 + [False]
    other = ShardDataset(write_moving_square(tmp_path / "other"), 4, split="all")
    mixture = MixtureDataset([data.with_window(4), other])
    items = [mixture[0], mixture[len(mixture) - 1]]
    assert [item["states"].shape for item in items] == [(4, 2)] * 2
    assert [bool(item["state_mask"].all()) for item in items] == [True, False]
    assert mixture.state_dim == 2 and same_statistics(mixture.state_stats, data.state_stats)


def test_shards_that_contradict_their_metadata_are_refused(tmp_path):
    folder = write_moving_square(tmp_path / "set", with_state=True)
    metadata = ShardMetadata.read(folder)
    metadata.state_shape, metadata.state_names, metadata.state_units, metadata.state_stats = (3,), None, None, None
    metadata.write(folder)
    with pytest.raises(ValueError, match=r"holds 6 episodes .* and states \(2,\), which contradicts the metadata"):
        ShardDataset(folder, None, split="all").episode(0)
    metadata.state_names = ["a", "b"]
    metadata.write(folder)
    with pytest.raises(ValueError, match="'state_names' has 2 entries for 3 state dimensions"):
        ShardDataset(folder, None, split="all")


def test_a_writer_refuses_states_of_another_shape(tmp_path):
    with (
        pytest.raises(ValueError, match=r"episode 4 has states of shape \(2, 3\), but its frames require \(1, 2\)"),
        write_shard(tmp_path / shard_name(0), 1, state_dim=2) as shard,
    ):
        shard.begin_episode(4)
        shard.add_frame(np.zeros((8, 8, 3), np.uint8))
        shard.end_episode(np.zeros((1, 1), np.float32), np.zeros((2, 3), np.float32))


def test_lerobot_and_shards_give_the_same_start_frames(tiny_lerobot, tiny_shards):
    direct = starts_from_dataset(LeRobotWindows(LeRobotSelection(TINY_REPO_ID, tiny_lerobot), None, split="all"))
    converted = starts_from_dataset(ShardDataset(tiny_shards, None, split="all"))
    assert torch.equal(direct.states, converted.states) and direct.state_mask.all()

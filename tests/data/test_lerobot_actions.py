"""Actions of LeRobot datasets: any shape and type, joined, named, large, missing, displacements, nearly constant."""

import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from lerobot_writer import FRAMES, LENGTHS, OWNERS, actions_of, converted, write_lerobot

from dreamer_hf.data import LeRobotWindows
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.inspect_dataset import describe
from dreamer_hf.data.lerobot_windows import opener_for_world
from dreamer_hf.data.sources.lerobot_info import flatten_names
from dreamer_hf.data.sources.lerobot_source import LeRobotSource

INTEGERS = [20_000_001 + int(k) for k in FRAMES]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.uint32(), pa.uint64()])
def test_differences_of_large_numbers_are_taken_before_they_are_rounded(tmp_path, kind, caplog):
    values = INTEGERS if kind != pa.float64() else [500_000 + 0.001 * k for k in FRAMES]
    feature = {"action": {"dtype": str(kind), "shape": [1], "names": ["ticks"]}}
    root = write_lerobot(tmp_path / "set", {"action": pa.array(values, kind)}, feature)
    step = 1 if kind != pa.float64() else 0.001
    for actions in actions_of(converted(root, tmp_path / "out", relative_actions=True)):
        np.testing.assert_allclose(actions[:, 0], [0, *[step] * (len(actions) - 1)], rtol=1e-6)
    windows = LeRobotWindows(
        root, None, split="all", options=ConversionOptions(relative_actions=True), action_offset=0
    )
    np.testing.assert_allclose(windows.episode(0)["actions"][1:, 0], step, rtol=1e-6)
    with caplog.at_level(logging.WARNING):
        converted(root, tmp_path / "absolute")
    assert ("actions of ticks reach" in caplog.text) == (kind != pa.float64())


def test_falling_numbers_without_a_sign_have_negative_differences(tmp_path):
    column = pa.array((200 - FRAMES).astype(np.uint8))
    root = write_lerobot(
        tmp_path / "set", {"action": column}, {"action": {"dtype": "uint8", "shape": [1], "names": None}}
    )
    data = converted(root, tmp_path / "out", relative_actions=True)
    assert actions_of(data)[1][:, 0].tolist() == [0, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("column", "shape", "dtype"),
    [
        (
            pa.array([[[k, 0.0], [1.0, 2.0]] for k in FRAMES.tolist()], pa.list_(pa.list_(pa.float32()))),
            [2, 2],
            "float32",
        ),
        (pa.array([[[k, 0], [1, 2]] for k in FRAMES.tolist()], pa.list_(pa.list_(pa.int16(), 2), 2)), [2, 2], "int16"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.list_(pa.uint8())), [4], "uint8"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.large_list(pa.float64())), [4], "float64"),
        (pa.array([[k, 0, 1, 2] for k in FRAMES.tolist()], pa.list_(pa.float16(), 4)), [4], "float16"),
    ],
)  # fmt: skip
def test_actions_of_any_shape_and_numeric_type_are_read(tmp_path, column, shape, dtype):
    root = write_lerobot(
        tmp_path / "set", {"action": column}, {"action": {"dtype": dtype, "shape": shape, "names": None}}
    )
    for actions, length in zip(actions_of(converted(root, tmp_path / "out")), LENGTHS, strict=True):
        np.testing.assert_array_equal(actions, [[k, 0, 1, 2] for k in range(length)])


def test_several_features_are_joined_to_one_action(tmp_path):
    columns = {"action": None, "action.arm": pa.array([[k, k + 0.5] for k in FRAMES.tolist()], pa.list_(pa.float32()))}
    columns |= {
        "action.gripper": pa.array((FRAMES % 2).astype(np.int64)),
        "action.x": pa.array(FRAMES.astype(np.float32)),
    }
    features = {
        "action": {"dtype": "string", "shape": [1], "names": None},
        "action.arm": {"dtype": "float32", "shape": [2], "names": ["x", "y"], "units": "mm"},
        "action.gripper": {"dtype": "int64", "shape": [1], "names": None},
        "action.x": {"dtype": "float32", "shape": [1], "names": ["x"]},
    }
    root = write_lerobot(tmp_path / "set", columns, features)
    data = converted(root, tmp_path / "out", action_key="action.arm,action.gripper")
    np.testing.assert_array_equal(actions_of(data)[1], [[k, k + 0.5, k % 2] for k in range(5)])
    assert data.action_names == ["x", "y", "action.gripper"] and data.action_units == ["mm", "mm", ""]
    assert data.metadata.action_key == "action.arm,action.gripper"
    assert "action.gripper" in describe(data.data_dir, 2)
    source = LeRobotSource(root, "me/set", action_key="action.arm,action.x")
    assert source.action_names == ["action.arm.x", "action.arm.y", "action.x.x"]
    with pytest.raises(
        ValueError, match=r"no feature 'arm' .*--action_key can be: action\.arm, action\.gripper, action\.x"
    ):
        LeRobotSource(root, "me/set", action_key="arm,action.x")


def test_nested_names_are_kept(tmp_path):
    assert flatten_names({"motors": ["a", "b"]}, 2) == flatten_names({"a": 0, "b": 1}, 2) == ["a", "b"]
    assert flatten_names(None, 2) is None and flatten_names(["a"], 2) is None
    assert flatten_names([["kLeft", "kRight"]], 2) == flatten_names([["kLeft"], ["kRight"]], 2) == ["kLeft", "kRight"]
    assert flatten_names({"arm": [["a"], "b"]}, 2) == ["a", "b"] and flatten_names("ab", 2) is None
    features = {"action": {"dtype": "float32", "shape": [2], "names": [["kLeft", "kRight"]]}}
    data = converted(write_lerobot(tmp_path / "set", features=features), tmp_path / "out")
    assert data.action_names == ["kLeft", "kRight"] and "kRight" in describe(data.data_dir, 2)


@pytest.mark.parametrize("inner", [False, True])
def test_missing_actions_are_named(tmp_path, inner):
    """A null on the last step of an episode is common."""
    values = [[float(k), 0.0] for k in FRAMES]
    values[sum(LENGTHS[:2]) - 1] = [None, 0.0] if inner else None
    root = write_lerobot(tmp_path / "set", {"action": pa.array(values, pa.list_(pa.float32()))})
    with pytest.raises(ValueError, match=r"the action of episode 1 at frame 4 is missing \(null\)"):
        converted(root, tmp_path / "out")
    assert len(actions_of(converted(root, tmp_path / "rest", episodes="0,2"))) == 2


def test_displacements_of_frames_left_out_are_added_up(tmp_path, caplog):
    """Component 0 is a displacement, component 1 a target."""
    rng = np.random.default_rng(0)
    moves = rng.integers(-4, 5, len(FRAMES)) / 4
    actions = np.stack([moves, OWNERS], axis=1).astype(np.float32)
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    with caplog.at_level(logging.INFO):
        data = converted(root, tmp_path / "out", target_fps=5, displacement_action_dims=(0,))
    assert "adding up the displacements of every 2 frames in action dimensions [0]" in caplog.text
    for position, found in enumerate(actions_of(data)):
        own = moves[position == OWNERS]
        np.testing.assert_array_equal(found[:, 0], [own[k : k + 2].sum() for k in range(0, len(own), 2)])
        assert set(found[:, 1]) == {position}
    assert data.relative_actions == [True, False]
    assert data.metadata.conversion["displacement_action_dims"] == [0]
    caplog.clear()
    thinned = converted(root, tmp_path / "thinned", target_fps=5)
    assert "give" not in caplog.text or "--displacement_action_dims 0" in caplog.text
    assert thinned.relative_actions == [False, False]


def test_actions_around_zero_are_announced_when_frames_are_left_out(tmp_path, caplog):
    moves = np.tile([0.5, -0.5, 0.25], len(FRAMES))[: len(FRAMES)].astype(np.float32)
    feature = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    root = write_lerobot(tmp_path / "set", {"action": pa.array(moves)}, feature)
    with caplog.at_level(logging.WARNING):
        converted(root, tmp_path / "out", target_fps=5)
    assert "vary around zero, as displacements do" in caplog.text and "--displacement_action_dims 0" in caplog.text
    data = converted(root, tmp_path / "all", target_fps=5, displacement_action_dims="all")
    assert data.relative_actions == [True] and actions_of(data)[1][:, 0].tolist() == [0.75, -0.25, 0.5]


def test_differences_of_displacements_are_refused(tmp_path):
    root = write_lerobot(tmp_path / "set")
    with pytest.raises(ValueError, match=r"--relative_actions would take differences of the displacements \[1\]"):
        converted(root, tmp_path / "out", relative_actions=True, displacement_action_dims=(1,))
    data = converted(
        root, tmp_path / "both", relative_actions=True, displacement_action_dims=(1,), absolute_action_dims=(1,)
    )
    assert data.relative_actions == [True, True]
    with pytest.raises(ValueError, match=r"--displacement_action_dims \[2\] do not exist"):
        converted(root, tmp_path / "none", displacement_action_dims=(2,))


class World:
    """What `opener_for_world` asks of a world's configuration."""

    fps, action_offset, relative_actions, state_dim, camera_names = 5.0, 1, None, 0, None

    def __init__(self, stats, names=None):
        self.action_stats, self.action_names = stats, names


def test_a_world_of_displacements_gets_them_added_up(tmp_path):
    moves = np.random.default_rng(1).normal(size=len(FRAMES)) + 0.1
    actions = np.stack([moves, FRAMES], axis=1).astype(np.float32)
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    data = converted(root, tmp_path / "out", target_fps=5, displacement_action_dims=(0,))
    opened = opener_for_world(root, World(data.action_stats), (16, 24))(split="all")
    for position in range(3):
        np.testing.assert_array_equal(opened.episode(position)["actions"][1:], actions_of(data)[position][:-1])


def test_a_world_finds_its_actions_under_another_name(tmp_path):
    features = {"action": {"dtype": "string", "shape": [1], "names": None}}
    features["actions"] = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    column = pa.array([[float(k), 0.0] for k in FRAMES], pa.list_(pa.float32()))
    root = write_lerobot(
        tmp_path / "set", {"action": None, "actions": column}, features | {"action": features["actions"]}
    )
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["action"]
    (root / "meta/info.json").write_text(json.dumps(info))
    assert opener_for_world(root, World(None, ["x", "y"]), (16, 24))(split="all").action_names == ["x", "y"]
    with pytest.raises(ValueError, match=r"has no feature 'action' .*--action_key can be: actions"):
        opener_for_world(root, World(None, ["a", "b"]), (16, 24))
    named = opener_for_world(root, World(None), (16, 24), action_key="actions")(split="all")
    assert named.action_names == ["x", "y"]


def test_nearly_constant_actions_have_no_deviation(tmp_path):
    """Noise below what float32 resolves must not be blown up to a signal by its own standard deviation."""
    rng = np.random.default_rng(0)
    actions = np.stack([np.sin(FRAMES / 3), 1.5 + 1e-7 * rng.standard_normal(len(FRAMES))], axis=1).astype(np.float32)
    assert actions[:, 1].std() > 0
    root = write_lerobot(tmp_path / "set", {"action": pa.array(list(actions), pa.list_(pa.float32()))})
    stats = converted(root, tmp_path / "out").action_stats
    assert stats["std"][1] == 0 and stats["std"][0] == pytest.approx(actions[:, 0].std(), rel=1e-5)
    assert LeRobotWindows(root, None, split="all").action_stats["std"][1] == 0


def test_outliers_are_announced(tmp_path, caplog):
    actions = np.random.default_rng(0).uniform(-1, 1, (20_000, 1))
    from dreamer_hf.data.action_data import ActionStatistics
    from dreamer_hf.data.value_warnings import warn_of_values

    for actions[7, 0], announced in ((1.0, False), (1e6, True)):
        caplog.clear()
        warn_of_values("action", ActionStatistics.of(actions).to_dict(), ["grip"])
        assert ("actions of grip reach 1e+06" in caplog.text) == announced

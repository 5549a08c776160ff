"""Scripted actions: files, patterns and what is refused."""

import numpy as np
import pytest

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.play.action_sources import load_script


@pytest.fixture
def space(world) -> ActionSpace:
    return ActionSpace.from_config(world.config.dynamics_config)


ACTIONS = np.array([[1, 2], [3, 4], [5, 6.5]], dtype=np.float32)


@pytest.mark.parametrize("name", ["script.npy", "script.csv", "header.csv"])
def test_files_give_their_rows_and_end(tmp_path, space, name):
    path = tmp_path / name
    if name == "script.npy":
        np.save(path, ACTIONS.astype(np.float64))
    else:
        np.savetxt(path, ACTIONS, delimiter=",", header="x,y" if name == "header.csv" else "", comments="")
        if name == "script.csv":
            path.write_text(path.read_text().lstrip())
    source = load_script(str(path), space)
    np.testing.assert_array_equal([source.action(i) for i in range(3)], ACTIONS)
    assert source.action(3) is None
    assert source.action(0).dtype == np.float32


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf1,2\r\n3,4\r\n5,6.5\r\n",
        b'\xef\xbb\xbf"x, left",y\r\n"1",2\r\n3,"4"\r\n5,6.5\r\n\r\n',
        b"x;y\n1;2\n3;4\n5;6,5\n",
        b"1;2\n3;4\n5;6.5\n",
    ],
    ids=["byte order mark", "quoted header", "decimal commas", "semicolons"],
)
def test_files_that_a_spreadsheet_saved_give_every_row(tmp_path, space, content):
    path = tmp_path / "script.csv"
    path.write_bytes(content)
    np.testing.assert_array_equal(load_script(str(path), space).actions, ACTIONS)


@pytest.mark.parametrize("pattern", [None, "circle", "sweep"])
def test_patterns_move_smoothly_inside_the_range(space, pattern):
    source = load_script(pattern, space)
    actions = np.array([source.action(i) for i in range(160)])
    assert (actions >= space.low).all() and (actions <= space.high).all()
    assert (np.ptp(actions, axis=0) > 0.5 * (space.high - space.low)).all()
    assert (np.abs(np.diff(actions, axis=0)) < 0.1 * (space.high - space.low)).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wide.npy", np.zeros((4, 3)), "target_x, target_y"),
        ("flat.npy", np.zeros(4), "shape"),
        ("empty.npy", np.zeros((0, 2)), "shape"),
        ("nan.npy", np.array([[0, 0], [np.nan, 1]]), "row 1"),
        ("words.npy", np.array([["a", "b"]]), "numbers"),
        ("objects.npy", np.array([{}], dtype=object), "numbers"),
        ("words.csv", "a,b\n1,c\n", "numbers"),
        ("ragged.csv", "1,2\n1\n", "numbers"),
        ("half_a_header.csv", "x,1\n1,2\n", "numbers"),
        ("empty.csv", "", "shape"),
        ("only_a_header.csv", "x,y\n", "shape"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, space, name, content, message):
    path = tmp_path / name
    path.write_text(content) if isinstance(content, str) else np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as caught:
        load_script(str(path), space)
    assert "\n" not in str(caught.value)


def test_a_missing_script_names_the_patterns(space):
    with pytest.raises(FileNotFoundError, match="circle"):
        load_script("nowhere.csv", space)

"""Properties of values from outside, by hypothesis: accepted unchanged, or refused in one sentence."""

import csv
import io
import json
import math

import numpy as np
import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig
from dreamer_hf.action_space import ActionSpace
from dreamer_hf.data.action_data import ActionStatistics, read_action_table
from dreamer_hf.data.files import read_json, write_json
from dreamer_hf.data.shards import ShardMetadata
from dreamer_hf.serve import protocol

few = settings(
    max_examples=60, deadline=10_000, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SPACE = ActionSpace(("x", "y"), np.float32([0, 10]), np.float32([512, 500]), np.zeros(2, bool), np.zeros(2, bool))


def refused(call, *arguments):
    """Return what `call` returns, or None if it refuses in one sentence."""
    try:
        return call(*arguments)
    except (ValueError, OSError, StrictDataclassError) as error:
        assert str(error) and "\n" not in str(error), repr(str(error))
        return None


def fields_of(config_class):
    defaults = config_class().to_dict()
    return st.dictionaries(st.sampled_from(sorted(defaults)), anything | st.integers(1, 64), max_size=4)


@pytest.mark.slow
@seed(1)
@few
@pytest.mark.parametrize("config_class", [DreamerTokenizerConfig, DreamerDynamicsConfig])
@given(data=st.data())
def test_configs_hold_what_they_were_given_or_are_refused(config_class, data):
    values = data.draw(fields_of(config_class))
    config = refused(config_class.from_dict, dict(values))
    if config is not None:
        again = config_class.from_dict(json.loads(config.to_json_string(use_diff=False)))
        assert again.to_dict() == config.to_dict()
        for name in ("hidden_size", "fps", "action_dim", "patch_size", "latent_dim"):
            if values.get(name) is not None and hasattr(config, name):
                assert getattr(config, name) == values[name]


METADATA = {"num_shards": 2, "total_episodes": 3, "image_shape": [16, 16, 3], "action_shape": [2]}


@pytest.mark.slow
@seed(2)
@few
@given(
    changes=st.dictionaries(
        st.sampled_from([item for item in ShardMetadata.__dataclass_fields__ if item != "extra"]), anything, max_size=3
    )
)
def test_metadata_are_taken_as_written_or_refused(changes, tmp_path):
    content = METADATA | changes
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    metadata = refused(ShardMetadata.read, tmp_path)
    if metadata is not None:
        shapes = ("image_shape", "action_shape", "latent_shape")
        for name in set(content) - set(shapes):
            if content[name] is not None:
                assert getattr(metadata, name) == content[name]
        metadata.write(tmp_path)
        assert ShardMetadata.read(tmp_path) == metadata


@seed(3)
@few
@given(content=st.dictionaries(st.text(max_size=8).filter(lambda name: name != "checksum"), anything, max_size=4))
def test_json_files_return_what_was_written(content, tmp_path):
    write_json(tmp_path / "a.json", content)
    assert json.dumps(read_json(tmp_path / "a.json")) == json.dumps(content)


finite = st.floats(-1e6, 1e6, width=32)


@seed(4)
@few
@given(
    rows=st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=6),
    named=st.booleans(),
    bom=st.booleans(),
    semicolon=st.booleans(),
    quoted=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_tables_are_read_as_spreadsheets_write_them(rows, named, bom, semicolon, quoted, end, tmp_path):
    text = io.StringIO()
    writer = csv.writer(
        *(text,),
        delimiter=";" if semicolon else ",",
        lineterminator=end,
        quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
    )
    if named:
        writer.writerow(["arm, left; up", "grip"])
    for row in rows:
        writer.writerow([repr(value).replace(".", "," if semicolon else ".") for value in row])
    path = tmp_path / "a.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    actions, names = read_action_table(path)
    np.testing.assert_array_equal(actions, np.array(rows))
    assert names == (["arm, left; up", "grip"] if named else None)


@seed(5)
@few
@given(text=st.text(alphabet="0123456789.,;\"'\n\r\t -+eEnaif\x00xé", max_size=40))
def test_any_text_is_a_table_of_numbers_or_refused(text, tmp_path):
    (tmp_path / "a.csv").write_bytes(text.encode())
    table = refused(read_action_table, tmp_path / "a.csv")
    if table is not None:
        actions, names = table
        assert actions.ndim == 2 and actions.size and (names is None or len(names) == actions.shape[1])


@seed(6)
@few
@given(
    actions=st.lists(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2), min_size=1, max_size=8
    ),
    cut=st.integers(0, 8),
)
def test_statistics_do_not_depend_on_how_the_actions_are_split(actions, cut):
    actions = np.array(actions, np.float32)
    whole = ActionStatistics.of(actions).to_dict()
    parts = ActionStatistics.of(actions[:cut]).merge(ActionStatistics.of(actions[cut:])).to_dict()
    assert whole["min"] == parts["min"] and whole["max"] == parts["max"] and whole["count"] == parts["count"]
    scale = np.abs(actions).max() + 1e-30
    np.testing.assert_allclose(np.array(parts["mean"]) / scale, np.array(whole["mean"]) / scale, atol=1e-12)


@seed(7)
@few
@given(actions=st.lists(st.floats(width=32), min_size=2, max_size=2))
def test_actions_are_clipped_to_the_valid_range_or_refused(actions):
    valid = refused(SPACE.valid, np.float32(actions))
    assert (valid is None) == (not np.isfinite(actions).all())
    if valid is not None:
        assert (valid >= SPACE.low).all() and (valid <= SPACE.high).all()


messages = st.fixed_dictionaries(
    {"type": st.sampled_from([*protocol.KINDS, "other"])},
    optional={
        name: anything | st.lists(st.floats() | st.integers(), max_size=3)
        for name in ("axes", "action", "pointer", "seq", "paused", "start", "seed", "on")
    },
)


@seed(8)
@few
@given(message=messages)
@example({"type": "action", "action": [10**400, 0]})
@example({"type": "action", "action": [1e39, 0]})
@example({"type": "input", "axes": [True]})
def test_messages_are_taken_as_sent_or_refused(message):
    taken = refused(protocol.read_message, json.dumps(message), SPACE, 2)
    if isinstance(taken, protocol.Input):
        assert np.isfinite(taken.axes).all() and np.abs(taken.axes).max() <= 1
        if taken.action is not None:
            np.testing.assert_array_equal(taken.action, np.float32(message["action"]))
        assert taken.seq == (message.get("seq") or 0)
    elif isinstance(taken, protocol.StartRequest):
        assert (taken.start, taken.seed) == (message.get("start"), message.get("seed"))


@seed(9)
@few
@given(text=st.binary(max_size=40) | st.text(alphabet='{}[]":,0123456789eE.-+ntfaulsrIyN\\u', max_size=40))
@example("[" * 40_000)
@example("9" * 5_000)
@example('{"a": NaN}')
@example('{"type": "\\ud800"}')
def test_any_bytes_are_a_message_or_refused(text):
    value = refused(protocol.read_json, text)
    assert value is None or all(not isinstance(v, float) or math.isfinite(v) for v in value.values())
    refused(protocol.read_message, text, SPACE, 2)

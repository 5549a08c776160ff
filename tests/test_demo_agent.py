"""The stages of `make demo-agent` have known options, and the controls of the experiment exchange every episode."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_hf.training.agent_evaluation import write_gate
from dreamer_hf.training.argument_parsing import parse_arguments
from dreamer_hf.training.runs import KINDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_the_training_stages_have_known_options(tmp_path):
    from demo_agent import AgentDemoOptions, stages

    (tmp_path / "agent").mkdir()
    write_gate(tmp_path / "agent", {"reward_correlation": {"reach": {"8": 0.9}}})
    chain = list(stages(AgentDemoOptions(), tmp_path))
    arguments = {}
    for kind, script in (("agent", "train_agent.py"), ("dreams", "train_in_dreams.py")):
        (stage,) = (stage for stage in chain if stage.command[0].endswith(script))
        arguments[kind] = parse_arguments(KINDS[kind][0], list(stage.command[1:]))
        assert stage.proof.parent == Path(arguments[kind].run.output_dir)
    assert arguments["dreams"].run.pretrained == arguments["agent"].run.output_dir
    assert arguments["agent"].objective.cache_world and arguments["dreams"].objective.horizon == 12
    assert all((ROOT / stage.command[0]).is_file() for stage in chain if stage.command[0] != "-m")
    assert sys.modules.pop("demo_agent")


def test_poor_rewards_leave_the_cloned_agent_and_say_what_to_do(tmp_path):
    from demo_agent import AgentDemoOptions, run_demo

    options = AgentDemoOptions(output_dir=str(tmp_path))
    finished = (
        "episodes/meta/info.json",
        "shards/metadata.json",
        "shards/labels/rewards.npz",
        "agent/model.safetensors",
    )
    for proof in (*finished, "result-without-dreams/agents.md"):
        (tmp_path / proof).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / proof).write_text("a table")
    write_gate(tmp_path / "agent", {"reward_correlation": {"reach": {"8": 0.41}}})
    text = run_demo(options)
    assert "a table" in text and "0.41, below 0.6" in text and "--agent_minutes 8" in text
    assert sys.modules.pop("demo_agent")


def test_no_episode_keeps_what_is_exchanged():
    from agent_experiment import _exchange

    lengths = np.array([5, 7, 5, 5, 7, 9])
    order = _exchange(lengths)
    np.testing.assert_array_equal(lengths[order], lengths)
    assert (order[:5] != np.arange(5)).all() and sorted(order) == list(range(6))

"""From the shipped world to an agent: record, convert, label, clone behavior, learn in dreams, act in the simulator.

    python examples/demo_agent.py
    python examples/demo_agent.py --agent_minutes 30 --dream_minutes 60 --episodes 400

The task is to move to a spot. The play that is recorded rarely gets there. The last stage shows the agent before and
after learning in dreams, in the simulator, next to scripts. If the predicted rewards are too poor to learn from, it
shows the agent before the dreams, and says so. Stages that have finished are not repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo_train import Stage, run_stages
from dreamer_hf.cli import run_with_options
from dreamer_hf.options import option

PRESET = "--preset pusht-tiny --resume_from_checkpoint latest --max_train_steps 100000"
GATE = 0.6
"""Correlation of predicted and real rewards after 8 dreamed frames with which learning in dreams begins."""


@dataclass(frozen=True, kw_only=True)
class AgentDemoOptions:
    """The options of this script."""

    output_dir: str = option("outputs/demo-agent", help="Folder for everything that is written.")
    episodes: int = option(120, help="Episodes of 80 frames to record.")
    spot: tuple[float, ...] = option((128.0, 128.0), help="Where to move: x and y in 0 to 512.")
    seed: int = option(17, help="Seed of the recorded play.")
    agent_minutes: float = option(4.0, help="Minutes of training on the recorded episodes.")
    dream_minutes: float = option(5.0, help="Minutes of training in dreams.")
    real_episodes: int = option(25, help="Episodes in the simulator, of each policy.")


def stages(options: AgentDemoOptions, output_dir: Path) -> Iterator[Stage]:
    """Yield the stages of the demo, which write to `output_dir`."""
    episodes, shards, agent, dreams = (output_dir / name for name in ("episodes", "shards", "agent", "dreams"))
    agents = [f"cloned={agent}"]
    yield from before_dreams(options, episodes, shards, agent)
    if gate_problem(agent) is None:
        yield dreaming(options, shards, agent, dreams)
        agents.append(f"after dreams={dreams}")
    result = output_dir / ("result" if len(agents) == 2 else "result-without-dreams")
    yield Stage(
        "act in the simulator, next to scripts",
        (
            *("examples/evaluate_agent.py", "--agents", *agents, "--baselines"),
            *("--episodes", str(options.real_episodes), "--output_dir", str(result)),
        ),
        result / "agents.md",
    )


def before_dreams(options: AgentDemoOptions, episodes: Path, shards: Path, agent: Path) -> Iterator[Stage]:
    """Yield the stages up to the agent that was cloned from the recorded play."""
    task = f"pusht:reach:{','.join(f'{value:g}' for value in options.spot)}"
    # The frames have to be made as those that the world was trained on, through a video: see docs/decisions/0011.
    record = f"examples/record_pusht.py --repo_id demo/pusht --episodes {options.episodes} --seed {options.seed}"
    convert = "conversion/lerobot_to_hdf5.py --repo_id demo/pusht --width 64 --height 64 --relative_actions"
    convert += " --state_key observation.state,observation.environment_state"
    yield Stage(
        "record play in gym-pusht as a LeRobotDataset",
        (*record.split(), "--root", str(episodes)),
        episodes / "meta/info.json",
    )
    yield Stage(
        "convert it to HDF5 shards of 64 pixels",
        (*convert.split(), "--local_dir", str(episodes), "--output_dir", str(shards)),
        shards / "metadata.json",
    )
    yield Stage(
        "compute the reward of every frame: how near the agent is to the spot",
        ("-m", "dreamer_hf", "label", "--data_dir", str(shards), "--reward", task),
        shards / "labels/rewards.npz",
    )
    yield Stage(
        "clone behavior and learn to predict rewards",
        (
            *("examples/train_agent.py", *PRESET.split(), "--max_train_minutes", str(options.agent_minutes)),
            *("--pretrained", "pusht-tiny", "--data_dir", str(shards), "--output_dir", str(agent)),
        ),
        agent / "model.safetensors",
    )


def dreaming(options: AgentDemoOptions, shards: Path, agent: Path, dreams: Path) -> Stage:
    """Return the stage that learns in dreams."""
    return Stage(
        "learn in dreams",
        (
            *("examples/train_in_dreams.py", *PRESET.split(), "--max_train_minutes", str(options.dream_minutes)),
            *("--pretrained", str(agent), "--data_dir", str(shards), "--output_dir", str(dreams)),
            *("--eval_steps", "0", "--min_gate_correlation", str(GATE)),
        ),
        dreams / "model.safetensors",
    )


def gate_problem(agent: Path) -> str | None:
    """Return why an agent cannot learn in dreams yet; None if it can."""
    from dreamer_hf.training.agent_evaluation import check_gate

    try:
        check_gate(agent, GATE)
    except ValueError as error:
        return str(error)
    return None


def run_demo(options: AgentDemoOptions) -> str:
    """Run the stages that have not finished yet; return where the results are."""
    output_dir = run_stages(options, stages)
    problem = gate_problem(output_dir / "agent")
    result = "result" if problem is None else "result-without-dreams"
    table = (output_dir / result / "agents.md").read_text(encoding="utf-8")
    text = f"\n{table}\nThe agents in the simulator are in {options.output_dir}/{result}/agents.gif"
    if problem is None:
        return f"{text}, and their dreams, before and after, in {options.output_dir}/dreams/preview.gif."
    return (
        f"{text}. There was no learning in dreams: {problem} For that, remove {options.output_dir}/agent and run "
        f"this again with --agent_minutes {2 * options.agent_minutes:g}."
    )


if __name__ == "__main__":
    run_with_options(AgentDemoOptions, run_demo, __doc__)

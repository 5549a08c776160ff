"""From the shipped world to an agent: record, convert, label, clone behavior, learn in dreams, act in the simulator.

    python examples/demo_agent.py
    python examples/demo_agent.py --agent_minutes 30 --dream_minutes 60 --episodes 400

The task is to move to a spot. The play that is recorded rarely gets there. The last stage shows the agent before and
after learning in dreams, in the simulator, next to scripts. If the predicted rewards are too poor to learn from, the
run stops before the dreams: repeat it with more minutes. Stages that have finished are not repeated.
"""

from dataclasses import dataclass
from pathlib import Path

from demo_train import Stage, run_stages
from dreamer_hf.cli import run_with_options
from dreamer_hf.options import option


@dataclass(frozen=True, kw_only=True)
class AgentDemoOptions:
    """The options of this script."""

    output_dir: str = option("outputs/demo-agent", help="Folder for everything that is written.")
    episodes: int = option(80, help="Episodes of 80 frames to record.")
    spot: tuple[float, ...] = option((128.0, 128.0), help="Where to move: x and y in 0 to 512.")
    seed: int = option(17, help="Seed of the recorded play.")
    agent_minutes: float = option(4.0, help="Minutes of training on the recorded episodes.")
    dream_minutes: float = option(4.0, help="Minutes of training in dreams.")
    real_episodes: int = option(25, help="Episodes in the simulator, of each policy.")


def stages(options: AgentDemoOptions, output_dir: Path) -> list[Stage]:
    """Return the stages of the demo, which write to `output_dir`."""
    names = ("episodes", "shards", "agent", "dreams", "result")
    episodes, shards, agent, dreams, result = (output_dir / name for name in names)
    task = f"pusht:reach:{','.join(f'{value:g}' for value in options.spot)}"
    record = f"examples/record_pusht.py --repo_id demo/pusht --episodes {options.episodes} --seed {options.seed}"
    states = "observation.state,observation.environment_state"
    convert = "conversion/lerobot_to_hdf5.py --repo_id demo/pusht --width 64 --height 64 --relative_actions"
    preset = "--preset pusht-tiny --resume_from_checkpoint latest --max_train_steps 100000"
    return [
        Stage(
            "record play in gym-pusht as a LeRobotDataset",
            (*record.split(), "--root", str(episodes)),
            episodes / "meta/info.json",
        ),
        Stage(
            "convert it to HDF5 shards of 64 pixels",
            (*convert.split(), "--state_key", states, "--local_dir", str(episodes), "--output_dir", str(shards)),
            shards / "metadata.json",
        ),
        Stage(
            "compute the reward of every frame: how near the agent is to the spot",
            ("-m", "dreamer_hf", "label", "--data_dir", str(shards), "--reward", task),
            shards / "labels/rewards.npz",
        ),
        Stage(
            "clone behavior and learn to predict rewards",
            (
                *("examples/train_agent.py", *preset.split(), "--max_train_minutes", str(options.agent_minutes)),
                *("--pretrained", "pusht-tiny", "--data_dir", str(shards), "--output_dir", str(agent)),
            ),
            agent / "model.safetensors",
        ),
        Stage(
            "learn in dreams",
            (
                *("examples/train_in_dreams.py", *preset.split(), "--max_train_minutes", str(options.dream_minutes)),
                *("--pretrained", str(agent), "--data_dir", str(shards), "--output_dir", str(dreams)),
                *("--eval_steps", "0"),
            ),
            dreams / "model.safetensors",
        ),
        Stage(
            "act in the simulator, before and after learning in dreams",
            (
                *("examples/evaluate_agent.py", "--agents", f"cloned={agent}", f"after dreams={dreams}"),
                *("--baselines", "--episodes", str(options.real_episodes), "--output_dir", str(result)),
            ),
            result / "agents.md",
        ),
    ]


def run_demo(options: AgentDemoOptions) -> str:
    """Run the stages that have not finished yet; return where the results are."""
    output_dir = run_stages(options, stages)
    table = (output_dir / "result" / "agents.md").read_text(encoding="utf-8")
    return (
        f"\n{table}\nThe agents in the simulator are in {options.output_dir}/result/agents.gif, and their dreams, "
        f"before and after, in {options.output_dir}/dreams/preview.gif."
    )


if __name__ == "__main__":
    run_with_options(AgentDemoOptions, run_demo, __doc__)

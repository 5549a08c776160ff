"""Does learning in dreams help in reality? Agents of PushT before and after it, with baselines and negative controls.

    python benchmarks/agent_experiment.py --data_dir data/pusht --output_dir outputs/experiment --task reach

For every seed of phase 1, agents are trained on labeled episodes: on the best 30 % of the windows, on all windows, and
on rewards and on actions that were exchanged between episodes (negative controls).
For every seed of phase 2, the first and the controls learn in dreams. All act in the same episodes of gym-pusht, next
to scripts. The intervals of the table are over runs. Runs that have finished are not repeated, and unfinished ones
continue, so the script can be stopped and started again.

`--data_dir` is a folder of shards of scripted play with the full state, as `examples/demo_agent.py` makes it. The
training options are those of `--preset` and `--extra`.
"""

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from dreamer_hf.cli import run_with_options
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.labels import Labels, data_fingerprint, label_path, read_labels, write_labels
from dreamer_hf.data.shards import ACTIONS
from dreamer_hf.options import option

SPOTS = ("128,128", "384,128", "128,384", "384,384")
TASKS = {
    "reach": (tuple(f"pusht:reach:{spot}" for spot in SPOTS), 60),
    "push": (("pusht:push:right",), 60),
    "coverage": (("pusht:coverage",), 300),
}
"""Reward functions and number of steps of an episode, by task."""


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """The options of this script."""

    data_dir: str = option(help="Folder of shards of scripted play.")
    output_dir: str = option("outputs/agent-experiment", help="Folder for everything that is written.")
    task: str = option("reach", choices=tuple(TASKS), help="What is learned.")
    rewards: tuple[str, ...] = option(
        (), metavar="NAME", help="Reward functions of the task to learn. Defaults to all of them."
    )
    world: str = option("pusht-tiny", help="World to act in.")
    preset: str = option("pusht-tiny", help="Preset of the training options.")
    agent_seeds: int = option(3, help="Runs of phase 1.")
    dream_seeds: int = option(2, help="Runs of phase 2 for each run of phase 1.")
    episodes: int = option(100, help="Episodes in the simulator, of each run.")
    planner_episodes: int = option(0, help="Episodes of planning with the reward head, which is slow.")
    controls: bool = option(True, help="Also train the negative controls.")
    extra: str = option("", help="More options of every training run, as one text.")


def run_experiment(options: ExperimentOptions) -> str:
    """Train what has not been trained yet, and return the table."""
    output = Path(options.output_dir).absolute()
    output.mkdir(parents=True, exist_ok=True)
    names, steps = TASKS[options.task]
    names = options.rewards or names
    data = Path(options.data_dir).absolute()
    if not label_path(data, options.task).exists():
        _dreamer("label", "--data_dir", data, "--reward", *names, "--name", options.task)
    kinds = {"cloned, best 30 %": (data, options.task, 0.7), "cloned, all": (data, options.task, 0.0)}
    controls = {}
    if options.controls:
        controls["control: exchanged rewards"] = data, _exchanged_rewards(data, options.task), 0.7
        controls["control: exchanged actions"] = _exchanged_actions(data, output / "exchanged", options.task)
    agents = []
    for number, (name, (folder, labels, quantile)) in enumerate((kinds | controls).items()):
        for seed in range(options.agent_seeds):
            agent = output / f"agent-{number}-{seed}"
            given = ("--labels", labels, "--relevant_quantile", quantile, "--pretrained", options.world)
            _train("agent", agent, folder, seed, options, *given)
            if name in kinds:
                agents.append(f"{name}={agent}")
            if name == "cloned, all":
                continue
            for again in range(options.dream_seeds):
                dreamed = output / f"dreamed-{number}-{seed}-{again}"
                gate = () if name in kinds else ("--min_gate_correlation", 0)
                _train("dreams", dreamed, folder, 100 * seed + again, options, "--pretrained", agent, *gate)
                agents.append(f"{'after dreams' if name in kinds else name}={dreamed}")
    command = ("examples/evaluate_agent.py", "--agents", *agents, "--tasks", *names, "--episodes", options.episodes)
    command += ("--steps", steps, "--baselines", "--planner_episodes", options.planner_episodes)
    _python(*command, "--output_dir", output / "result")
    return (output / "result" / "agents.md").read_text(encoding="utf-8")


def _train(kind: str, output: Path, data: Path, seed: int, options: ExperimentOptions, *argv) -> None:
    if (output / "model.safetensors").exists():
        return
    fixed = ("--preset", options.preset, "--resume_from_checkpoint", "latest", "--seed", seed, "--output_dir", output)
    _dreamer("train", kind, *fixed, "--data_dir", data, *argv, *shlex.split(options.extra))


def _exchanged_rewards(data: Path, name: str) -> str:
    """Write labels in which every episode has the rewards of another one of its length; return their name."""
    dataset, other = ShardDataset(data, None, split="all"), f"{name}-exchanged"
    labels = read_labels(label_path(data, name), dataset)
    order = _exchange(dataset.episode_lengths)
    parts = ([each[number] for number in order] for each in (labels.rewards, labels.successes))
    write_labels(label_path(data, other), Labels(labels.task_names, *parts), data_fingerprint(dataset))
    return other


def _exchanged_actions(data: Path, folder: Path, name: str) -> tuple[Path, str, float]:
    """Copy the shards, with the actions of every episode exchanged for those of another one of its length."""
    if not folder.exists():
        shutil.copytree(data, folder)
        for path in sorted(folder.glob("shard_*.h5")):
            with h5py.File(path, "r+") as file:
                order = _exchange(file["episode_lengths"][:])
                file[ACTIONS][...] = file[ACTIONS][:][order]
    return folder, name, 0.7


def _exchange(lengths: np.ndarray) -> np.ndarray:
    """Return an order in which no episode keeps its place, if another one has its length."""
    order = np.arange(len(lengths))
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        order[same] = np.roll(same, 1)
    return order


def _dreamer(*argv) -> None:
    _python("-m", "dreamer_hf", *argv)


def _python(*argv) -> None:
    command = [sys.executable, *map(str, argv)]
    print(f"$ python {shlex.join(command[1:])}", flush=True)
    if subprocess.run(command, cwd=Path(__file__).parents[1]).returncode:
        raise ValueError("the step above failed: start the experiment again to continue it.")


if __name__ == "__main__":
    run_with_options(ExperimentOptions, run_experiment, __doc__)

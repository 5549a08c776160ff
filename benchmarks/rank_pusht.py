"""Do dreams rank policies as the simulator of PushT does? LeRobot's policies, scripted players, and noisy ones.

    python benchmarks/rank_pusht.py --output_dir outputs/rank-pusht

Records play, trains small policies with `lerobot-train`, and ranks several checkpoints of each run together with the
players, in dreams of `--world` and in the simulator. Then come the negative controls: dreams under the actions for
other episodes, and a world whose training was stopped after `--control_minutes`. Every step is a command that is
printed, and what is there already is not done again; so the script can be stopped and started again, and
`--stages record train` prepares what a later call ranks.

`OUTPUT_DIR/ranking` is the ranking, `OUTPUT_DIR/control-actions` and `OUTPUT_DIR/control-world` are the controls.
"""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dreamer_hf.cli import run_with_options
from dreamer_hf.options import option

STAGES = ("record", "train", "rank", "controls")
IMAGE_SIZE = 64
IMAGE_AND_STATE = {
    "observation.image": {"type": "VISUAL", "shape": [3, IMAGE_SIZE, IMAGE_SIZE]},
    "observation.state": {"type": "STATE", "shape": [2]},
}
PLAYERS = ("push", "push:0.75", "push:0.5", "push:0.25", "varied", "random", "rest")
NOISY = ("player:push@noise=0.3", "player:push@noise=1")
SCORES = ("pusht:coverage", "pusht:goal", "pusht:reach:256,256")
COMMON = {
    "policy.push_to_hub": "false",
    "policy.device": "cpu",
    "policy.pretrained_backbone_weights": "null",
    "dataset.use_imagenet_stats": "false",
    "batch_size": 16,
    "num_workers": 0,
    "env_eval_freq": 0,
}


@dataclass(frozen=True)
class Run:
    """A training run of a policy.

    Attributes:
        steps: number of its steps.
        checkpoints: steps whose checkpoints are ranked; all are multiples of the first.
        options: options of `lerobot-train`.
    """

    steps: int
    checkpoints: tuple[int, ...]
    options: dict[str, object]


RUNS = {
    "act": Run(
        1200,
        (150, 300, 600, 1200),
        {
            "policy.dim_model": 128,
            "policy.n_heads": 4,
            "policy.dim_feedforward": 512,
            "policy.n_encoder_layers": 2,
            "policy.n_vae_encoder_layers": 2,
            "policy.chunk_size": 16,
            "policy.n_action_steps": 8,
            "policy.optimizer_lr": 3e-4,
            "policy.optimizer_lr_backbone": 3e-4,
        },
    ),
    "diffusion": Run(
        600,
        (200, 400, 600),
        {
            "policy.use_group_norm": "true",
            "policy.down_dims": "[64,128]",
            "policy.horizon": 16,
            "policy.n_action_steps": 8,
            "policy.noise_scheduler_type": "DDIM",
            "policy.num_inference_steps": 10,
            "policy.optimizer_lr": 1e-3,
            "policy.scheduler_warmup_steps": 50,
        },
    ),
    # VQ-BeT counts every input feature as a token, but has no token for observation.environment_state.
    "vqbet": Run(
        750,
        (250, 500, 750),
        {
            "policy.input_features": json.dumps(IMAGE_AND_STATE),
            "policy.use_group_norm": "true",
            "policy.crop_shape": "null",
            "policy.n_vqvae_training_steps": 150,
            "policy.n_obs_steps": 2,
            "policy.n_action_pred_token": 2,
            "policy.action_chunk_size": 5,
            "policy.gpt_n_layer": 3,
            "policy.gpt_n_head": 4,
            "policy.gpt_input_dim": 128,
            "policy.gpt_output_dim": 128,
            "policy.gpt_hidden_dim": 128,
            "policy.optimizer_lr": 5e-4,
            "policy.scheduler_warmup_steps": 50,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class ProofOptions:
    """The options of this script."""

    output_dir: str = option("outputs/rank-pusht", help="Folder for everything that is written.")
    stages: tuple[str, ...] = option(STAGES, help="What to do: some of record, train, rank and controls.")
    runs: tuple[str, ...] = option(tuple(RUNS), help="Policies to train and rank: some of act, diffusion and vqbet.")
    world: str = option("pusht-tiny", help="World to dream in.")
    recorded_episodes: int = option(240, help="Episodes that policies learn from.")
    steps: int | None = option(None, help="Steps of every training run. Defaults to those of this script.")
    episodes: int = option(100, help="Episodes of each policy, in dreams and in the simulator.")
    horizon: int = option(64, help="Frames of an episode.")
    control_minutes: float = option(6, help="Minutes of training of the half-trained world.")
    threads: int = option(1, help="CPU threads.")

    def __post_init__(self):
        for name, known in (("stages", STAGES), ("runs", tuple(RUNS))):
            unknown = sorted(set(getattr(self, name)) - set(known))
            if unknown:
                raise ValueError(f"unknown --{name} {unknown[0]}: choose some of {', '.join(known)}.")


def prove(options: ProofOptions) -> str:
    """Do what the options say, and return the table of the last ranking."""
    output = Path(options.output_dir).absolute()
    output.mkdir(parents=True, exist_ok=True)
    proof, text = Proof(options, output), ""
    for stage in STAGES:
        if stage in options.stages:
            text = getattr(proof, stage)() or text
    return text


class Proof:
    """The stages; see the top of this file."""

    def __init__(self, options: ProofOptions, output: Path):
        self.options, self.output = options, output

    def record(self) -> None:
        """Record play that brings the block to its goal, more and less well, and some without a goal."""
        flags = {"repo_id": "me/pusht-play", "root": "play", "episodes": self.options.recorded_episodes}
        flags |= {"image_size": IMAGE_SIZE, "seed": 700}
        self._unless("play", "dreamer", "record", *_flags(flags), "--players", "push", "push", "push:0.75", "varied")

    def train(self) -> None:
        """Train the policies."""
        for name in self.options.runs:
            run = self._run(name)
            flags = {"dataset.repo_id": "me/pusht-play", "dataset.root": "play", "output_dir": name}
            flags |= {"policy.type": name, "steps": run.steps, "save_freq": run.checkpoints[0], "log_freq": 50}
            program = ["lerobot-train", *(f"--{key}={value}" for key, value in (flags | COMMON | run.options).items())]
            self._unless(name, *program)

    def rank(self) -> str:
        """Rank all policies in dreams of the world and in the simulator."""
        return self._rank("ranking", self.options.world)

    def controls(self) -> str:
        """Rank them in worlds that should not agree with the simulator."""
        text = self._rank("control-actions", self.options.world, "--other_actions")
        flags = {"repo_id": "me/pusht-play", "local_dir": "play", "output_dir": "shards"}
        flags |= {"width": IMAGE_SIZE, "height": IMAGE_SIZE, "relative_actions": "true"}
        self._unless("shards", "dreamer", "convert", "lerobot", *_flags(flags))
        self._save_tokenizer()
        flags = {"preset": "pusht-tiny", "data_dir": "shards", "tokenizer": "tokenizer", "output_dir": "half-trained"}
        flags |= {"max_train_minutes": self.options.control_minutes, "eval_steps": 0}
        self._unless("half-trained", "dreamer", "train", "dynamics", *_flags(flags))
        return text + "\n\n" + self._rank("control-world", "half-trained")

    @property
    def policies(self) -> list[str]:
        """Names of the policies whose files are there."""
        checkpoints = [f"{name}/checkpoints/{step:06}" for name in RUNS for step in self._run(name).checkpoints]
        trained = [path for path in checkpoints if (self.output / path).is_dir()]
        noisy = [f"{path}@noise=0.5" for path in trained[3:4]]
        return [*trained, *noisy, *(f"player:{name}" for name in PLAYERS), *NOISY]

    def _run(self, name: str) -> Run:
        run, steps = RUNS[name], self.options.steps
        return run if steps is None else Run(steps, (steps,), run.options)

    def _rank(self, folder: str, world: str, *further: str) -> str:
        shutil.rmtree(self.output / folder, ignore_errors=True)  # its episodes are in the cache
        flags = {"world": world, "real": "gym_pusht/PushT-v0", "episodes": self.options.episodes}
        flags |= {"steps": self.options.horizon, "threads": self.options.threads, "device": "cpu", "engine": "onnx"}
        flags |= {"cache_dir": "cache", "output_dir": folder}
        self._call("dreamer", "rank", "--policies", *self.policies, "--score", *SCORES, *_flags(flags), *further)
        return (self.output / folder / "ranking.md").read_text()

    def _save_tokenizer(self) -> None:
        from dreamer_hf.loading import load_world
        from dreamer_hf.worlds import resolve_model

        if not (self.output / "tokenizer").exists():
            load_world(resolve_model(self.options.world)).tokenizer.save_pretrained(self.output / "tokenizer")

    def _unless(self, made: str, *command: str) -> None:
        """Run a command unless what it makes is there; what an interrupted one left is removed first."""
        done = self.output / f"{made}.done"
        if done.exists():
            return
        shutil.rmtree(self.output / made, ignore_errors=True)
        self._call(*command)
        done.touch()

    def _call(self, program: str, *arguments: str) -> None:
        print(shlex.join([program, *arguments]), flush=True)
        ended = subprocess.run([str(Path(sys.executable).parent / program), *arguments], cwd=self.output)
        if ended.returncode:
            raise ValueError(f"{program} failed with status {ended.returncode}: see its last lines above.")


def _flags(values: dict[str, object]) -> list[str]:
    """Return options of a command; true stands for the option alone."""
    return [part for name, value in values.items() for part in (f"--{name}", str(value)) if part != "true"]


if __name__ == "__main__":
    run_with_options(ProofOptions, prove, __doc__)

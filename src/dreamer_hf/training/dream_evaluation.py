"""How well an agent does in dreams, next to the behavior that it was cloned from, and in the real simulator.

Shapes: B dreams, C context frames, H dreamed frames, Q tasks.
"""

import importlib.util
import logging
from dataclasses import dataclass, field

import numpy as np
import torch

from ..camera_views import decode_cameras, tile_cameras
from ..evaluation.videos import side_by_side
from ..imagination import ImaginedTrajectories
from ..modeling_dreamer_agent import DreamerAgentModel
from .agent_arguments import DreamsObjectiveArguments
from .batches import Batch
from .verdicts import History

logger = logging.getLogger(__name__)
TRIES = 4
"""Dreams from the same frames with which the support of a prior is measured."""
LEAST_GAIN = 1e-3
"""Reward per frame by which the best of `TRIES` dreams must exceed their mean."""
REAL_SEED = 10_000
"""Seeds of real episodes start here."""


def dream_from(
    agent: DreamerAgentModel,
    batch: Batch,
    tasks: torch.Tensor,
    horizon: int,
    num_inference_steps: int | None,
    generators,
    use_prior: bool = False,
    return_latents: bool = False,
) -> ImaginedTrajectories:
    """Let an agent dream from a batch of windows of latents; see `DreamerAgentModel.imagine`."""
    states = {name: batch[name] for name in ("states", "state_mask") if name in batch}
    if not agent.config.dynamics_config.state_dim:
        states = {}
    return agent.imagine(
        batch["latents"].float(),
        batch["actions"],
        batch["action_mask"],
        tasks,
        horizon,
        num_inference_steps,
        generator=generators,
        use_prior=use_prior,
        return_latents=return_latents,
        **states,
    )


@dataclass(frozen=True)
class PriorSupport:
    """What cloned behavior earns in dreams from the same frames with different noise.

    Attributes:
        mean: reward per frame, as a mean.
        best: that of the best of `tries` dreams from the same frames, as a mean over frames.
        tries: number of dreams from the same frames.
    """

    mean: float
    best: float
    tries: int = TRIES

    def describe(self) -> str:
        """Return a sentence for people."""
        return (
            f"In dreams the cloned behavior earns {self.mean:.3f} per frame; the best of {self.tries} dreams from the "
            f"same frames earns {self.best:.3f}."
        )

    def check(self) -> None:
        """Refuse behavior that never does more or less of what its rewards ask for.

        Raises:
            ValueError: all dreams from the same frames earn the same.
        """
        if self.best - self.mean < LEAST_GAIN:
            raise ValueError(
                f"all dreams of the cloned behavior earn the same, {self.mean:.3f} per frame, so there is nothing "
                "better to learn from: record episodes in which the task is sometimes done, or choose a reward that "
                "says how near it is."
            )


def prior_support(
    agent: DreamerAgentModel, batch: Batch, horizon: int, num_inference_steps: int | None, generator: torch.Generator
) -> PriorSupport:
    """Measure the support of a prior on a batch of windows of latents, of which the first 16 are used."""
    repeated = {name: value[:16].repeat_interleave(TRIES, dim=0) for name, value in batch.items()}
    tasks = tasks_of(len(repeated["actions"]) // TRIES, agent.config.num_tasks).repeat_interleave(TRIES)
    dream = dream_from(agent, repeated, tasks, horizon, num_inference_steps, generator, use_prior=True)
    earned = dream.rewards.mean(dim=1).unflatten(0, (-1, TRIES))
    return PriorSupport(float(earned.mean()), float(earned.amax(dim=1).mean()))


def tasks_of(count: int, num_tasks: int) -> torch.Tensor:
    """Return tasks (count,) by turns."""
    return torch.arange(count) % num_tasks


@dataclass
class DreamEvaluation:
    """Adds up the rewards of an agent, and of the behavior that it was cloned from, on the same frames and noise.

    Args:
        agent: the agent, in eval mode.
        options: how it dreams.
    """

    agent: DreamerAgentModel
    options: DreamsObjectiveArguments
    video: list[np.ndarray] = field(default_factory=list)
    _rewards: dict[str, list[torch.Tensor]] = field(default_factory=lambda: {"policy": [], "prior": []})
    _real: dict[str, float] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, batch: Batch, generators: list[torch.Generator]) -> None:
        """Add dreams from a batch of windows of latents, with a generator for each."""
        tasks, dreams = tasks_of(len(batch["actions"]), self.agent.config.num_tasks), {}
        for name in self._rewards:
            noise = [generator.clone_state() for generator in generators]
            settings = self.options.horizon, self.options.num_inference_steps, noise
            dreams[name] = dream_from(self.agent, batch, tasks, *settings, name == "prior", return_latents=True)
            self._rewards[name].append(dreams[name].rewards.cpu())
        if not self.video:
            self._show(batch["latents"], {name: dream.latents for name, dream in dreams.items()})

    def _show(self, context: torch.Tensor, dreams: dict[str, torch.Tensor]) -> None:
        """Make a video of the first two dreams."""
        titles = {"prior": "cloned behavior", "policy": "after dreaming"}
        for row in range(min(2, len(context))):
            videos = {}
            for name, title in titles.items():
                latents = torch.cat([context[row].float(), dreams[name][row].float()])[None]
                videos[title] = tile_cameras(decode_cameras(self.agent.world.tokenizer, latents))[0]
            self.video += side_by_side(videos, context.shape[1], height=192)

    def act_in_simulator(self, num_episodes: int, num_steps: int) -> None:
        """Let the agent act in gym-pusht, if it is installed and its tasks are rewards of PushT."""
        names = self.agent.config.task_names or []
        if importlib.util.find_spec("gym_pusht") is None or not all(name.startswith("pusht:") for name in names):
            logger.warning("no real episodes: gym-pusht is not installed, or the tasks are not rewards of PushT.")
            return
        from ..pusht.real_episodes import AgentPolicy, run_episodes
        from ..reward_functions import reward_function

        tasks = tasks_of(num_episodes, len(names)).tolist()
        functions = [reward_function(names[task]) for task in tasks]
        seeds = range(REAL_SEED, REAL_SEED + num_episodes)
        episodes = run_episodes(AgentPolicy(self.agent, tasks), self.agent.world.config, functions, seeds, num_steps)
        self._real = {
            "eval_real_reward": float(np.nanmean(episodes.mean_reward)),
            "eval_real_success": float(episodes.ends_solved.mean()),
        }

    def values(self) -> dict[str, float]:
        """Return the metrics: reward per dreamed frame of policy and prior, that of the last frame, and those of real
        episodes."""
        policy, prior = (torch.cat(self._rewards[name]) for name in ("policy", "prior"))
        return {
            "eval_imagined_reward": float(policy.mean()),
            "eval_imagined_reward_prior": float(prior.mean()),
            "eval_imagined_last_reward": float(policy[:, -1].mean()),
            "eval_imagined_last_reward_prior": float(prior[:, -1].mean()),
            **self._real,
        }


def dreams_verdict(values: dict[str, float], history: History) -> str:
    """Return what the last evaluation of an agent in dreams says; arguments as in `verdicts.tokenizer_verdict`."""
    ours, prior = values["eval_imagined_reward"], values["eval_imagined_reward_prior"]
    text = f"in dreams from held-out frames: {ours:.3f} per frame, against {prior:.3f} of the cloned behavior."
    if "eval_real_reward" not in values:
        return f"{text}\nWhat an agent earns in dreams does not rank agents: let it act in reality."
    real = [line["eval_real_reward"] for line in history if "eval_real_reward" in line]
    return (
        f"{text}\nin the simulator: {values['eval_real_reward']:.3f} per frame, solved at the end of "
        f"{values['eval_real_success']:.0%} of the episodes (first evaluation: {real[0]:.3f} per frame)."
    )


__all__ = ["DreamEvaluation", "PriorSupport", "dream_from", "dreams_verdict", "prior_support", "tasks_of"]

"""How well an agent clones behavior and predicts rewards, on held-out windows; the gate before it learns in dreams.

Shapes: B windows, T frames, C context frames, N latent tokens, d latent channels, Q tasks, L prediction distances.
"""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..agent_distributions import ActionDistribution, Categorical
from ..agent_losses import future_targets, policy_nll, two_hot_mean
from ..data.files import first_line, replacing
from ..evaluation.open_loop import Clips, dream_clips
from ..modeling_dreamer_agent import DreamerAgentModel
from .batches import Batch
from .trained_agent import run_heads
from .verdicts import History

GATE_FILE = "reward_gate.json"
GATE_STEPS = (1, 4, 8, 16)
"""Frames of a dream after which predicted rewards are compared with the real ones."""
GATE_AT = 8
"""The one that decides whether learning in dreams may start."""
VECTORS = ("actions", "action_mask", "states", "state_mask")


class ActionHistogram:
    """How often each choice occurs in the data: what a policy must beat.

    Args:
        actions: the agent's action distribution.
        choices: (F, C) of many frames, by `actions.encode`.
    """

    def __init__(self, actions: ActionDistribution, choices: torch.Tensor):
        self._log_probs, self._normal = [], []
        for part, values in zip(actions.parts, choices.unbind(-1)):
            if isinstance(part, Categorical):
                counts = torch.bincount(values.long(), minlength=part.num_logits) + 1.0
                self._log_probs.append((counts / counts.sum()).log())
            else:
                spread = values.std().clamp(min=1e-3)
                self._log_probs.append(torch.distributions.Normal(values.mean(), spread))

    def nll(self, choices: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood (...) of choices (..., C)."""
        terms = [
            each[values.long()] if isinstance(each, torch.Tensor) else each.log_prob(values)
            for each, values in zip(self._log_probs, choices.cpu().unbind(-1))
        ]
        return -torch.stack(terms).sum(0)


@dataclass
class _Pairs:
    """Predicted and true rewards of one task."""

    predicted: list[np.ndarray] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)

    def add(self, predicted: torch.Tensor, true: torch.Tensor, mask: torch.Tensor) -> None:
        for values, new in ((self.predicted, predicted), (self.true, true)):
            values.append(new.cpu()[mask.cpu()].double().numpy())

    def correlation(self) -> float:
        """Return the correlation; NaN for less than three pairs, or if the rewards do not vary."""
        predicted, true = np.concatenate(self.predicted), np.concatenate(self.true)
        if len(true) < 3 or true.std() < 1e-9:
            return math.nan
        # A prediction that does not vary knows nothing.
        return 0.0 if predicted.std() < 1e-9 else float(np.corrcoef(predicted, true)[0, 1])

    def error(self) -> float:
        """Return the mean absolute error; NaN without pairs."""
        errors = np.abs(np.concatenate(self.predicted) - np.concatenate(self.true))
        return float(errors.mean()) if len(errors) else math.nan


class AgentEvaluation:
    """Adds up how well an agent does on labeled held-out windows, each of which is looked at for all tasks.

    Args:
        agent: the agent, in eval mode.
        memory_of: `memory_of(batch, generator)` returns what an agent can see of windows of latents.
        histogram: of the actions of the training data.
        limits: (Q,) mean reward from which on a window counts as relevant for a task, so that its actions are
            imitated.
    """

    def __init__(self, agent: DreamerAgentModel, memory_of, histogram: ActionHistogram, limits: np.ndarray):
        self.agent, self._memory_of, self._histogram, self._limits = agent, memory_of, histogram, limits
        self.num_tasks = len(limits)
        self._nll: list[list[torch.Tensor]] = [[] for _ in range(agent.config.num_predicted_steps)]
        self._floor: list[list[torch.Tensor]] = [[] for _ in range(agent.config.num_predicted_steps)]
        self._real = [_Pairs() for _ in range(self.num_tasks)]
        self._dreamed: dict[int, list[_Pairs]] = {}
        self.num_windows = 0

    @torch.no_grad()
    def add(self, batch: Batch, latents: torch.Tensor, generator: torch.Generator) -> None:
        """Add a batch of windows with their clean latents (B,T,N,d)."""
        length = latents.shape[1]
        steps = [step for step in GATE_STEPS if step <= length // 2]
        memory = self._memory_of(batch | {"latents": latents}, generator)
        context = length - max(steps)
        clips = Clips(latents, num_context_frames=context, **{name: batch[name] for name in VECTORS if name in batch})
        dreamed = dream_clips(self.agent.world.dynamics, clips, generator).latents
        dreamed = torch.cat([latents[:, :context], dreamed], dim=1)
        dreamed_memory = self._memory_of(batch | {"latents": dreamed}, generator)
        # An unlabeled window has a mean of NaN, which is relevant for no task.
        means = (batch["rewards"].sum(dim=1) / batch["reward_mask"].sum(dim=1)).cpu().numpy()
        choices = self.agent.actions.encode(batch["actions"])
        for task in range(self.num_tasks):
            numbers = torch.full((len(latents),), task, device=latents.device)
            output = run_heads(self.agent, memory, numbers)
            true, mask = batch["rewards"][..., task], batch["reward_mask"][..., task]
            predicted = two_hot_mean(output.reward_logits[:, :, 0], self.agent.value_bins)
            self._real[task].add(predicted, true, mask)
            relevant = torch.from_numpy(means[:, task] >= self._limits[task]).to(latents.device)
            self._add_policy(output.policy_logits, choices, batch["action_mask"] & relevant[:, None])
            in_dream = run_heads(self.agent, dreamed_memory, numbers).reward_logits[:, :, 0]
            in_dream = two_hot_mean(in_dream, self.agent.value_bins)
            for step in steps:
                frame = context - 1 + step
                pairs = self._dreamed.setdefault(step, [_Pairs() for _ in range(self.num_tasks)])
                pairs[task].add(in_dream[:, frame], true[:, frame], mask[:, frame])
        self.num_windows += len(latents)

    def _add_policy(self, logits: torch.Tensor, choices: torch.Tensor, mask: torch.Tensor) -> None:
        nll, exists = policy_nll(self.agent.actions, logits, choices, mask)
        targets, _ = future_targets(choices, mask, logits.shape[2], first=1)
        floor = self._histogram.nll(targets)
        for distance in range(logits.shape[2]):
            chosen = exists[:, :, distance]
            self._nll[distance].append(nll[:, :, distance][chosen].cpu())
            self._floor[distance].append(floor[:, :, distance][chosen.cpu()])

    def values(self) -> dict[str, float]:
        """Return the metrics: the likelihood of held-out actions at the first and the last distance against that of
        the histogram, the error of predicted rewards, and their correlation with the real ones, on real frames and
        after some dreamed frames, as a mean over the tasks."""
        values = {}
        for distance in sorted({1, len(self._nll)}):
            nll, floor = (torch.cat(parts[distance - 1]) for parts in (self._nll, self._floor))
            if len(nll):
                values[f"eval_policy_nll_{distance}"] = float(nll.mean())
                values[f"eval_policy_floor_{distance}"] = float(floor.mean())
        values["eval_reward_error"] = _mean([pairs.error() for pairs in self._real])
        values["eval_reward_correlation"] = _mean([pairs.correlation() for pairs in self._real])
        for step, pairs in self._dreamed.items():
            values[f"eval_reward_correlation_{step}"] = _mean([each.correlation() for each in pairs])
        return values

    def gate(self) -> dict:
        """Return the correlations of every task by the number of dreamed frames (0: on real frames)."""
        by_step = {0: self._real} | self._dreamed
        names = self.agent.config.task_names or [str(task) for task in range(self.num_tasks)]
        found = {name: {str(s): by_step[s][task].correlation() for s in by_step} for task, name in enumerate(names)}
        found = {name: {s: c for s, c in of.items() if not math.isnan(c)} for name, of in found.items()}
        return {"reward_correlation": found, "num_windows": self.num_windows}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def write_gate(folder: Path, gate: dict) -> None:
    """Write how well predicted rewards fit in dreams, for `check_gate`."""
    with replacing(folder / GATE_FILE) as temporary:
        temporary.write_text(json.dumps(gate, indent=2) + "\n", encoding="utf-8")


def copy_gate(source: Path, target: Path) -> None:
    """Copy what `write_gate` wrote to another folder, if it is there."""
    if (source / GATE_FILE).is_file():
        shutil.copyfile(source / GATE_FILE, target / GATE_FILE)


def check_gate(folder: Path, least: float) -> None:
    """Refuse to dream with rewards that were not measured, or that do not fit what would really happen.

    Args:
        folder: of the agent.
        least: smallest correlation after `GATE_AT` dreamed frames, or after the most that were measured.

    Raises:
        ValueError: the rewards were not measured, or fit worse.
    """
    if least == 0:
        return
    try:
        found = json.loads((folder / GATE_FILE).read_text(encoding="utf-8"))["reward_correlation"]
        worst = {name: _at_gate(of) for name, of in found.items()}
        name = min(worst, key=lambda task: worst[task])
        value = float(worst[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder} does not say how well its rewards fit in dreams ({first_line(error)}): make the agent with "
            "dreamer train agent, or give --min_gate_correlation 0 to start anyway."
        ) from error
    if value < least:
        raise ValueError(
            f"the rewards that the agent predicts in dreams for the task {name!r} correlate with the real ones by "
            f"only {value:.2f}, below {least:g}, so it would learn what is not worth anything: train the agent longer "
            "or on more data, or give a smaller --min_gate_correlation."
        )


def _at_gate(correlations: dict[str, float]) -> float:
    measured = [int(step) for step in correlations if int(step) <= GATE_AT]
    return correlations[str(max(measured))]


def agent_verdict(values: dict[str, float], history: History) -> str:
    """Return what the last evaluation of an agent says; arguments as in `verdicts.tokenizer_verdict`."""
    lines = []
    if "eval_policy_nll_1" in values:
        nll, floor = values["eval_policy_nll_1"], values["eval_policy_floor_1"]
        lines.append(
            f"held-out actions: {nll:.2f} nats, against {floor:.2f} for the histogram of all actions"
            + (": the policy learned nothing from the frames yet" if nll > floor - 0.05 else "")
            + "."
        )
    measured = {
        int(name.rsplit("_", 1)[1]): value
        for name, value in values.items()
        if name.startswith("eval_reward_correlation_")
    }
    listed = ", ".join(f"{value:.2f} after {step}" for step, value in sorted(measured.items()))
    lines.append(
        f"predicted rewards: correlation {values['eval_reward_correlation']:.2f} with the real ones on real frames; "
        f"in dreams under the real actions {listed} frames."
    )
    return "\n".join(lines)


__all__ = ["ActionHistogram", "AgentEvaluation", "agent_verdict", "check_gate", "copy_gate", "write_gate"]

"""How far to believe a dreamed frame: a number for each row and frame, at the cost of one more dream and, if the model
uses that signal, an encoder pass.

Two signals tell when a dream leaves reality, without a real frame to compare with:

- `reencoding`: the distance of the dreamed latents from those of the decoded and encoded frame. Latents that no frame
  has do not come back as they were.
- `spread`: the distance from a second dream of the same start under the same actions, with other noise. Where the
  actions do not determine what happens, the two part.

A logistic model, fitted on held-out episodes (`dreamer trust`), turns them into the probability that the frame is
farther from reality than a tolerance; trust is one minus that. The model is `trust.json` in the world's folder.

    trust = load_trust("pusht-tiny")
    rollout = TrustedRollout(engine_for(world), world.start_rollout(starts), trust)
    output = rollout.step(actions)                       # output.trust: float32 (B,), in [0, 1]

Shapes: B rows, R of them, H, W pixels, N_z latent tokens, d_z latent channels, K signals.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .data.files import read_json
from .engines.world_engine import WorldEngine, as_numpy
from .worlds import resolve_model

TRUST_NAME = "trust.json"
FORMAT_VERSION = 1
SIGNALS = ("reencoding", "spread", "step")
"""What a trust model can be fitted on; `step` is the number of frames since the start."""
FLOOR = 1e-6
"""Signals smaller than this count as this: the model sees their logarithms."""
HOW_TO_FIT = "fit one with `dreamer trust --model {model} --data_dir SHARDS --save`."


@dataclass(frozen=True)
class TrustModel:
    """The probability that a dreamed frame is farther from reality than a tolerance: a logistic model.

    Attributes:
        signals: names of K signals, of `SIGNALS`.
        weights: K weights of the natural logarithms of the signals.
        bias: its constant.
        measure: what the distance from reality is; see docs/ranking.md.
        tolerance: distance up to which a frame counts as real, in the unit of the measure.
        num_frames, num_episodes: what it was fitted on.
        auroc: area under the ROC curve on episodes that it was not fitted on (cross-validation).
        num_inference_steps: denoising passes of the dreams that it was fitted on.

    Raises:
        ValueError: signals that do not exist, or numbers that do not fit.
    """

    signals: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    measure: str
    tolerance: float
    num_frames: int
    num_episodes: int
    auroc: float
    num_inference_steps: int

    def __post_init__(self):
        numbers = (*self.weights, self.bias, self.tolerance, self.auroc)
        finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if not self.signals or not set(self.signals) <= set(SIGNALS) or len(self.weights) != len(self.signals):
            raise ValueError(f"expected one weight for each of some of the signals {', '.join(SIGNALS)}.")
        if not finite:
            raise ValueError("expected finite numbers.")

    def __call__(self, signals: dict[str, np.ndarray]) -> np.ndarray:
        """Return the trust, float32 (B,), for signals (B,) by name."""
        logs = [np.log(np.maximum(signals[name], FLOOR)) for name in self.signals]
        score = np.clip(self.bias + sum(weight * log for weight, log in zip(self.weights, logs)), -50, 50)
        return (1 / (1 + np.exp(score))).astype(np.float32)


def load_trust(path_or_repo: str | os.PathLike) -> TrustModel:
    """Read the trust model that is saved with a world.

    Args:
        path_or_repo: the world's folder, its repository on the Hub, the name of a shipped world, or a `trust.json`.

    Raises:
        ValueError: there is none, or the file is damaged.
    """
    path = _find(path_or_repo)
    try:
        content = read_json(path)
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"it has version {version}, this package reads {FORMAT_VERSION}")
        content["signals"], content["weights"] = tuple(content["signals"]), tuple(content["weights"])
        return TrustModel(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} is damaged ({reason}): {HOW_TO_FIT.format(model=path.parent)}") from error


def trust_content(trust: TrustModel) -> dict:
    """Return what `trust.json` holds."""
    return {"format_version": FORMAT_VERSION, **asdict(trust)}


def _find(path_or_repo: str | os.PathLike) -> Path:
    path = Path(resolve_model(path_or_repo))
    if path.is_dir():
        path = path / TRUST_NAME
    if path.is_file():
        return path
    if not path.parent.is_dir() or path.name != TRUST_NAME:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(str(path_or_repo), TRUST_NAME))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            pass
    raise ValueError(f"{path_or_repo} carries no {TRUST_NAME}: {HOW_TO_FIT.format(model=path_or_repo)}")


class TrustedRollout:
    """A rollout whose frames come with their trust.

    It has the methods of the rollout that dreams use. Its twin, a copy with other noise, runs along with it.
    What is dreamed stays the same: the twin draws from its own generators.

    Args:
        engine: the world's.
        rollout: a rollout of R rows that has just started; from here on, step it through this object only.
        trust: the model; None if only the signals are asked for.

    Attributes:
        rollout: the rollout itself.
        signals: float64 (B,) by name, of the last step; empty before the first. `reencoding` is missing if the trust
            model does not use it.
    """

    def __init__(self, engine: WorldEngine, rollout, trust: TrustModel | None):
        self.engine, self.rollout, self.trust = engine, rollout, trust
        self.signals: dict[str, np.ndarray] = {}
        self._twin = engine.twin(rollout)
        self._steps = np.zeros(rollout.batch_size, np.int64)

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.rollout.batch_size

    @property
    def frame_index(self) -> int:
        """Index of the frame that the next step generates; the first context frame has index 0."""
        return self.rollout.frame_index

    def step(self, actions, action_mask=None):
        """Generate one frame in every row, as the rollout's own `step` does.

        Returns:
            Its output, with `trust`: float32 (B,) in [0, 1], a NumPy array; None without a model.

        Raises:
            ValueError: a shape that does not fit, or actions that are not finite. Nothing has changed then.
        """
        output = self.rollout.step(actions, action_mask)
        other = self._twin.step(actions, action_mask)
        self._steps = self._steps + 1
        latents = as_numpy(output.latents)
        self.signals = {
            "spread": _distance(latents, as_numpy(other.latents)),
            "step": self._steps.astype(np.float64),
        }
        if self.trust is None or "reencoding" in self.trust.signals:  # Otherwise the encoder's pass is spared.
            self.signals["reencoding"] = _distance(latents, self.engine.encode_frames(output.pixel_values))
        output.trust = None if self.trust is None else self.trust(self.signals)
        return output

    def reset(self, *frames, rows: Sequence[int] | None = None, **arguments):
        """Start again, as the rollout's own `reset` does; the twin follows."""
        latents = self.rollout.reset(*frames, rows=rows, **arguments)
        if rows is None:
            self._twin, self._steps = self.engine.twin(self.rollout), np.zeros(self.batch_size, np.int64)
            return latents
        rows = [int(row) for row in rows]
        new = self.engine.twin(self.rollout.clone(rows=rows))
        order = np.arange(self.batch_size)
        order[rows] = self.batch_size + np.arange(len(rows))
        self._twin = type(new).join([self._twin, new]).clone(rows=order.tolist())
        self._steps = self._steps.copy()
        self._steps[rows] = 0
        return latents

    def clone(self, rows: Sequence[int] | None = None) -> TrustedRollout:
        """Return an independent copy of all rows or of some, as the rollout's own `clone` does."""
        twin = copy.copy(self)
        twin.rollout, twin._twin = self.rollout.clone(rows=rows), self._twin.clone(rows=rows)
        indices = slice(None) if rows is None else np.asarray(rows)
        twin._steps = self._steps[indices].copy()
        twin.signals = {name: values[indices] for name, values in self.signals.items()}
        return twin

    @staticmethod
    def join(rollouts: Sequence[TrustedRollout]) -> TrustedRollout:
        """Return one rollout with the rows of several, as the rollout's own `join` does."""
        joined = copy.copy(rollouts[0])
        joined.rollout = type(joined.rollout).join([each.rollout for each in rollouts])
        joined._twin = type(joined._twin).join([each._twin for each in rollouts])
        joined._steps = np.concatenate([each._steps for each in rollouts])
        joined.signals = {}
        return joined

    def copy_(self, other: TrustedRollout) -> None:
        """Become an independent copy of another rollout in place, as the rollout's own `copy_` does."""
        self.rollout.copy_(other.rollout)
        self._twin.copy_(other._twin)
        self._steps, self.signals = other._steps.copy(), dict(other.signals)

    def compile(self) -> None:
        """Compile the rollout; the twin is not compiled."""
        self.rollout.compile()


def _distance(latents: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the root mean square difference (B,) of latents (B, N_z, d_z)."""
    difference = latents.astype(np.float64) - others.astype(np.float64)
    return np.sqrt(np.square(difference).mean(axis=(1, 2)))


__all__ = ["SIGNALS", "TRUST_NAME", "TrustModel", "TrustedRollout", "load_trust", "trust_content"]

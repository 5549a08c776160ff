"""Conversion between Gymnasium's action spaces and the raw actions of a world. Needs no torch.

Shapes: B rows, A components of an action.
"""

import numpy as np
from gymnasium import spaces

from ..action_space import ActionSpace


class ActionFormat:
    """The Gymnasium space of a world's actions, and the conversion of its elements to raw actions.

    | components | space |
    | --- | --- |
    | all continuous | `Box` (A,) float32 in the data's units, over the data's range |
    | all categorical | `MultiDiscrete`; `Discrete` where there is one component |
    | both | `Dict` of "continuous" (`Box`) and "categorical" (`MultiDiscrete`), each in the data's order |

    A component that is constant in the data gets a range around its value, so that the space can be rescaled; the
    world clips it to that value.

    Args:
        actions: the world's actions.
        flat: use one `Box` (A,) in any case, for algorithms that support nothing else; categorical components are
            rounded.

    Attributes:
        space: the space of one action.
    """

    def __init__(self, actions: ActionSpace, flat: bool = False):
        self.size = actions.size
        constant = np.maximum(1, 1e-3 * np.abs(actions.low)) * (actions.low == actions.high) * ~actions.discrete
        self.low, self.high = actions.low - constant, actions.high + constant
        self.categorical = actions.discrete
        self.flat = flat or not actions.discrete.any()
        self.space = self._make_space()

    def to_raw(self, batch) -> np.ndarray:
        """Convert B elements of the space, stacked as in `gymnasium.vector`, to raw actions (B, A) float32.

        Raises:
            ValueError: a wrong shape, a value that is not finite, or a class that does not exist.
        """
        raw = self._flatten(batch)
        if raw.ndim != 2 or raw.shape[1] != self.size:
            raise ValueError(f"the action has shape {raw.shape[1:]}: give an element of {self.space}.")
        if not np.isfinite(raw).all():
            raise ValueError("the action holds a value that is not a finite number: give finite ones.")
        raw[:, self.categorical] = self._classes(raw[:, self.categorical])
        return raw

    def _make_space(self) -> spaces.Space:
        if self.flat:
            return spaces.Box(self.low, self.high, dtype=np.float32)
        counts = self.high[self.categorical].astype(np.int64) + 1
        if not self.categorical.all():
            continuous = ~self.categorical
            box = spaces.Box(self.low[continuous], self.high[continuous], dtype=np.float32)
            return spaces.Dict({"continuous": box, "categorical": spaces.MultiDiscrete(counts)})
        return spaces.Discrete(counts[0]) if self.size == 1 else spaces.MultiDiscrete(counts)

    def _flatten(self, batch) -> np.ndarray:
        if not isinstance(self.space, spaces.Dict):
            flat = np.array(batch, dtype=np.float32)
            return flat[:, None] if isinstance(self.space, spaces.Discrete) and flat.ndim == 1 else flat
        if not isinstance(batch, dict) or batch.keys() != self.space.keys():
            raise ValueError(
                f"expected a dict of {', '.join(self.space)} as the action: pass an element of {self.space}."
            )
        parts = {name: np.asarray(part, dtype=np.float32) for name, part in batch.items()}
        widths = {"continuous": self.size - self.categorical.sum(), "categorical": self.categorical.sum()}
        for name, part in parts.items():
            if part.ndim != 2 or part.shape[1] != widths[name]:
                raise ValueError(f"the action's {name} part has shape {part.shape[1:]}: give {(int(widths[name]),)}.")
        flat = np.empty((len(parts["continuous"]), self.size), dtype=np.float32)
        flat[:, ~self.categorical], flat[:, self.categorical] = parts["continuous"], parts["categorical"]
        return flat

    def _classes(self, values: np.ndarray) -> np.ndarray:
        classes, high = np.round(values), self.high[self.categorical]
        if ((classes < 0) | (classes > high)).any():
            raise ValueError(f"the action names a class that does not exist: give 0 to {high.astype(int).tolist()}.")
        return classes


def add_row_axis(action):
    """Return one element of a space as a batch of one."""
    if isinstance(action, dict):
        return {name: np.asarray(part)[None] for name, part in action.items()}
    return np.asarray(action)[None]

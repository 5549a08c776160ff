"""What the gauges of the window show: the state of a dream, and its trust if that is known."""

import numpy as np

from ..dreams import Dream, Dreams
from ..state_space import StateSpace

TRUST = "trust"


def gauges_of(dreams: Dreams) -> StateSpace:
    """Return the components that gauges show: the world's state, and a last one from 0 to 1 for the trust."""
    state = dreams.state_space
    if dreams.trust is None:
        return state
    ends = (
        np.append(part, end).astype(np.float32) for part, end in ((state.low, 0), (state.high, 1), (state.mean, 1))
    )
    return StateSpace((*state.names, TRUST), *ends, None if state.units is None else (*state.units, ""))


def gauge_values(dream: Dream) -> np.ndarray | None:
    """Return the values of these components, float32; None if there are none."""
    if dream.trust is None:
        return dream.state
    state = np.zeros(0, np.float32) if dream.state is None else dream.state
    return np.append(state, np.float32(dream.trust))


__all__ = ["gauge_values", "gauges_of"]

"""Values of actions and states that are easily overlooked and make training worse."""

import logging

import numpy as np

logger = logging.getLogger(__name__)
LARGEST_EXACT_FLOAT = 1 << 24
OUTLIER_DEVIATIONS = 50


def warn_of_values(kind: str, stats: dict | None, names: list[str] | None) -> None:
    """Log values that float32 rounds, and outliers.

    Args:
        kind: "action" or "state".
        stats: as `ActionStatistics.to_dict` returns them.
        names: of the dimensions, if they are known.
    """
    if stats is None:
        return
    largest = np.maximum(np.abs(stats["min"]), np.abs(stats["max"]))
    farthest = np.maximum(np.subtract(stats["max"], stats["mean"]), np.subtract(stats["mean"], stats["min"]))
    for dim, (size, distance, std) in enumerate(zip(largest, farthest, stats["std"], strict=True)):
        label = names[dim] if names else f"dimension {dim}"
        if size > LARGEST_EXACT_FLOAT:
            advice = "differences of such values are exact if they are converted with --relative_actions"
            advice = advice if kind == "action" else "subtract an offset in the recordings"
            logger.warning(f"{kind}s of {label} reach {size:.9g}, and float32 keeps only 7 digits: {advice}.")
        if distance > OUTLIER_DEVIATIONS * std > 0:
            logger.warning(
                f"{kind}s of {label} reach {size:.4g}, {distance / std:.0f} standard deviations from their mean: look "
                "for outliers in the recordings, which training does not remove."
            )

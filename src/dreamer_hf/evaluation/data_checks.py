"""Whether a world can be evaluated on a data set, and how the data differ from those that it was trained on."""

import numpy as np

from ..action_space import ActionSpace
from ..configuration_dreamer import DreamerDynamicsConfig, DreamerWorldConfig
from ..data import ShardDataset

SPREAD_RATIO = 2.0
"""Actions of the same meaning have standard deviations within this factor of each other,"""
MEAN_SHIFT = 1.0
"""and means within this number of standard deviations."""
ADAPT = (
    "figures on actions with another meaning say little about the world; to adapt it to them, train with "
    "--reset_action_embedding (docs/adapting.md)."
)


def check_data_fits(config: DreamerWorldConfig, data: ShardDataset) -> None:
    """Check that a world can take the data.

    Raises:
        ValueError: the data are latents, or image size, cameras, action or state width, frame rate or alignment
            differ. The message lists everything that differs.
    """
    tokenizer, dynamics = config.tokenizer_config, config.dynamics_config
    if data.image_size is None:
        raise ValueError(f"{data.data_dir} holds latents: choose the folder of frames that they were made from.")
    pairs = {
        "image size": (tokenizer.frame_size, tuple(data.image_size)),
        "cameras": (dynamics.camera_names, data.camera_names),
        "action width": (dynamics.action_dim, data.action_dim),
        "action_offset": (dynamics.action_offset, data.action_offset),
    }
    if dynamics.state_dim and data.state_dim:  # Either may have none.
        pairs["state width"] = (dynamics.state_dim, data.state_dim)
    if data.fps is not None:
        pairs["frame rate"] = (dynamics.fps, float(data.fps))
    differences = [
        f"{name} {ours} but the data has {theirs}" for name, (ours, theirs) in pairs.items() if ours != theirs
    ]
    if differences:
        raise ValueError(f"the world has {', and '.join(differences)}: convert the data to match.")


def action_warnings(config: DreamerDynamicsConfig, data: ShardDataset) -> list[str]:
    """Return a sentence for each sign that the actions of the data mean something else than those of the world.

    Compared are names, units, displacement or position, and statistics, as far as both sides know them.
    """
    space = ActionSpace.from_config(config)
    warnings = []
    for what, ours, theirs in (
        ("are named", config.action_names, data.action_names),
        ("are in", config.action_units, data.action_units),
    ):
        if ours is not None and theirs is not None and list(ours) != list(theirs):
            warnings.append(f"The actions of the data {what} {_listed(theirs)}, those of the world {_listed(ours)}.")
    ours, theirs = config.action_stats, data.action_stats
    if ours is not None and theirs is not None:
        continuous = ~space.discrete
        our_std, their_std = (np.maximum(np.asarray(stats["std"], float), 1e-9) for stats in (ours, theirs))
        ratio = their_std / our_std
        shift = np.abs(np.subtract(theirs["mean"], ours["mean"])) / np.maximum(our_std, their_std)
        differs = continuous & ((np.abs(np.log(ratio)) > np.log(SPREAD_RATIO)) | (shift > MEAN_SHIFT))
        for index in np.flatnonzero(differs):
            values = (f"{stats['mean'][index]:.3g} ± {stats['std'][index]:.3g}" for stats in (theirs, ours))
            warnings.append(
                "The play is different: the data's {} is {}, the world's {}.".format(
                    f"{space.names[index]!r}", *values
                )
            )
    return warnings


def _listed(texts: list[str]) -> str:
    return ", ".join(map(str, texts))


__all__ = ["ADAPT", "action_warnings", "check_data_fits"]

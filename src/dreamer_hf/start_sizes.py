"""The sizes of the start frames that fit a world, in every engine. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StartSizes:
    """What start frames of a world have.

    Attributes:
        frame_size: height and width of a frame of one camera.
        action_dim: width of an action.
        camera_names: names of several cameras; None for one camera.
        state_dim: width of the state; 0 for a world without one.
        state_names: names of its components, if the world knows them.
    """

    frame_size: tuple[int, int]
    action_dim: int
    camera_names: Sequence[str] | None = None
    state_dim: int = 0
    state_names: Sequence[str] | None = None

    def check(self, starts) -> None:
        """Raise a ValueError unless start frames, of PyTorch or of NumPy, have these sizes.

        A world with a state can begin without one; a world without a state leaves one out.
        """
        frames, actions, states = starts.pixel_values_videos, starts.actions, starts.states
        height, width = frames.shape[-2:]
        if (height, width) != tuple(self.frame_size):
            raise ValueError(
                f"the start frames are {height}x{width} pixels but the world dreams "
                f"{self.frame_size[0]}x{self.frame_size[1]}: convert the data at that size, or start from a LeRobot "
                "dataset, a video or an image, which are resized."
            )
        if actions.shape[-1] != self.action_dim:
            raise ValueError(
                f"the start frames come with actions of width {actions.shape[-1]} but the world takes "
                f"{self.action_dim}: choose data of the robot that the world was trained on."
            )
        cameras, ours = (frames.shape[2] if frames.ndim == 6 else 1), len(self.camera_names or [""])
        if cameras != ours:
            raise ValueError(
                f"the start frames show {cameras} camera(s) but the world has {ours}{_listed(self.camera_names)}: "
                "start from data that have its cameras."
            )
        if states is not None and self.state_dim not in (0, states.shape[-1]):
            raise ValueError(
                f"the start frames come with states of width {states.shape[-1]} but the world has "
                f"{self.state_dim}{_listed(self.state_names)}: choose data of the robot that the world was trained on."
            )


def _listed(names: Sequence[str] | None) -> str:
    return f" ({', '.join(names)})" if names else ""


__all__ = ["StartSizes"]

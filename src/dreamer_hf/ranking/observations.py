"""What policies see of N episodes that are played side by side, in dreams or for real.

Shapes: N episodes, H, W pixels, S state components, A action components.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch

from ..pusht.state import find_pusht_state
from ..pusht.task import TEE_CENTER_OFFSET, WORLD_SIZE

SCENE_SIZE, AGENT_SIZE = 5, 2
"""Components of a scene of PushT: x, y of the agent; x, y and angle of the block; and those of the agent alone."""
UNSEEN = np.array([WORLD_SIZE / 2] * 4 + [0.0])
"""What an agent or a block that has never been found counts as: in the middle of the table."""


@dataclass(frozen=True)
class WorldView:
    """What a policy has to fit: the form of a world's frames, states and actions.

    Attributes:
        camera_names: names of its cameras; empty for a single camera without a name.
        state_size: S, 0 if it has no state.
        action_size: A.
        has_scene: whether its frames show PushT, in which agent and block can be found.
    """

    camera_names: tuple[str, ...]
    state_size: int
    action_size: int
    has_scene: bool


class Observation:
    """What is seen of N episodes at one moment. Frames are drawn, and scenes found, when they are asked for.

    Args:
        draw: returns the frames, uint8 (N, H, W, 3), several cameras side by side.
        states: float32 (N, S) in the units of the data; None if there are none.
        positions: float64 (N, A), where the last actions have led, for policies whose actions are positions; None if
            that is not known.
        scene: float64 (N, 5), the scene of PushT, if it is known without looking.
        last_scene: what to take where no agent or block is found in a frame.
        num_cameras: number of cameras side by side in the frames.
    """

    def __init__(
        self,
        draw: Callable[[], np.ndarray],
        states: np.ndarray | None,
        positions: np.ndarray | None,
        scene: np.ndarray | None = None,
        last_scene: np.ndarray | None = None,
        num_cameras: int = 1,
    ):
        self._draw, self.states, self.positions = draw, states, positions
        self._scene, self._last_scene, self.num_cameras = scene, last_scene, num_cameras

    @cached_property
    def frames(self) -> np.ndarray:
        """The frames, uint8 (N, H, W, 3) RGB."""
        return self._draw()

    @cached_property
    def scene(self) -> np.ndarray:
        """Where agent and block of PushT are, float64 (N, 5)."""
        if self._scene is not None:
            return self._scene
        scene = find_scenes(self.frames)
        return np.where(np.isnan(scene), UNSEEN if self._last_scene is None else self._last_scene, scene)

    @property
    def found_scene(self) -> np.ndarray | None:
        """The scene if it is known or has been looked for."""
        return self.__dict__.get("scene", self._scene)

    def camera(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Return the frames of one camera at a size (height, width): float32 (N, 3, height, width) in [0, 1]."""
        width = self.frames.shape[2] // self.num_cameras
        frames = self.frames[:, :, index * width : (index + 1) * width]
        if frames.shape[1:3] != size:
            smaller = size[0] < frames.shape[1]
            method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            frames = np.stack([cv2.resize(frame, size[::-1], interpolation=method) for frame in frames])
        return np.moveaxis(frames, -1, 1).astype(np.float32) / 255


def find_scenes(frames: np.ndarray) -> np.ndarray:
    """Return the scenes of PushT found in frames uint8 (N, S, S, 3): float64 (N, 5), NaN where nothing is found.

    The block's place is that of its body, as in the simulator, and its angle is in [0, 2 pi).
    """
    found = find_pusht_state(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2) / 255)
    agent, center, angle = (part.double().numpy() for part in (found.agent, found.block, found.angle))
    offset = TEE_CENTER_OFFSET * np.column_stack([-np.sin(angle), np.cos(angle)])
    return np.column_stack([agent, center - offset, angle % (2 * np.pi)])


__all__ = ["AGENT_SIZE", "SCENE_SIZE", "Observation", "WorldView", "find_scenes"]

"""What LeRobot has to know of a world before it is loaded: sizes, rates and names, from its config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..action_space import ActionSpace
from ..engines.opening import is_export
from ..onnx.manifest import MANIFEST_NAME, Manifest, action_space, state_space
from ..state_space import StateSpace
from ..worlds import resolve_model

PUSHT_ACTIONS = ("target_x", "target_y")
"""Names of the actions in recordings of PushT."""
SMALLEST_PUSHT = 32
"""Side in pixels of the smallest frames in which agent and block are found."""
DEFAULT_FPS = 10.0
"""Frame rate of worlds that do not know it, as in `DreamerDynamicsConfig`."""


@dataclass(frozen=True)
class WorldFacts:
    """A world, described.

    Attributes:
        model: name of a shipped world, folder, or Hub repository.
        actions: its actions.
        state: its state, of length 0 if it has none.
        cameras: names of its cameras; empty if it has one, which has no name.
        frame_size: height and width of a image of one camera, in pixels.
        fps: frames per second.
    """

    model: str
    actions: ActionSpace
    state: StateSpace
    cameras: tuple[str, ...]
    frame_size: tuple[int, int]
    fps: float

    @property
    def is_pusht(self) -> bool:
        """Whether it looks like a world of PushT, by the names of its actions and its square images."""
        height, width = self.frame_size
        is_square = height == width >= SMALLEST_PUSHT and not self.cameras
        return is_square and self.actions.names == PUSHT_ACTIONS

    @property
    def frame_rate(self) -> int:
        """The frame rate as LeRobot writes it, a whole number."""
        return max(1, round(self.fps))


def read_world_facts(model: str) -> WorldFacts:
    """Describe a world, or an export of one, without loading its weights.

    Raises:
        ValueError: there is no such world.
    """
    if is_export(model):
        return _of_export(model)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(resolve_model(model))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"there is no world {model!r}, here or on the Hub ({reason}): check its name.") from error
    if config.model_type != "dreamer_world":
        raise ValueError(f"{model} is a {config.model_type}: give the folder or repository of a world.")
    dynamics = config.dynamics_config
    return WorldFacts(
        model,
        ActionSpace.from_config(dynamics),
        StateSpace.from_config(dynamics),
        tuple(dynamics.camera_names or ()),
        tuple(config.tokenizer_config.frame_size),
        dynamics.fps,
    )


def _of_export(model: str) -> WorldFacts:
    manifest = Manifest.read(Path(model) / MANIFEST_NAME)
    actions, state = action_space(manifest.actions), state_space(manifest.state)
    size, cameras = tuple(manifest.frame_size), tuple(manifest.cameras or ())
    return WorldFacts(model, actions, state, cameras, size, manifest.fps or DEFAULT_FPS)


__all__ = ["WorldFacts", "read_world_facts"]

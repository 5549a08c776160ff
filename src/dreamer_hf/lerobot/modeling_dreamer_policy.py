"""An agent as a LeRobot policy: it sees a frame, and gives the next action, at every step.

Shapes: B rows, V cameras, h, w pixels of an observation, H, W pixels of the world, L distances, a action width.
"""

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from ..agent_episode import AgentEpisode
from ..configuration_dreamer_agent import DreamerAgentConfig
from ..data.frame_transform import FrameTransform
from ..modeling_dreamer_agent import DreamerAgentModel
from ..seeded_noise import SeededNoise
from .configuration_dreamer_policy import DreamerConfig


class DreamerPolicy(PreTrainedPolicy):
    """A `DreamerAgentModel` that LeRobot runs: `lerobot-eval --policy.path=FOLDER`.

    All rows of a batch start together, at the first call after `reset`.

    Args:
        config: holds the agent's config.
        dataset_stats, dataset_meta: given by LeRobot, and not used.

    Attributes:
        model: the agent.
    """

    config_class = DreamerConfig
    name = "dreamer"

    def __init__(self, config: DreamerConfig, dataset_stats: dict | None = None, dataset_meta=None):
        super().__init__(config)
        config.validate_features()
        self.model = DreamerAgentModel(DreamerAgentConfig.from_dict(config.agent_config))
        self.task = int(config.task) if config.task.isdigit() else config.task
        self.model.agent_tokens(self.task, 1, 1)  # refuses an unknown task here, not in the first step
        height, width = self.model.config.world_config.tokenizer_config.frame_size
        self._resize = FrameTransform(width, height)
        self._num_started = 0
        self.reset()

    @classmethod
    def _load_as_safetensor(cls, model, model_file: str, map_location: str, strict: bool):
        return super()._load_as_safetensor(model, model_file, map_location, True)

    def reset(self) -> None:
        """End the episodes: the next observation is the first of new ones."""
        self._episode: AgentEpisode | None = None
        self._last_action: Tensor | None = None
        self._targets: Tensor | None = None

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Return the action (B,a) for an observation: `observation.image`, and perhaps `observation.state`.

        Raises:
            ValueError: the observation lacks an image, or the state that is needed to give positions.
        """
        self._see(batch)
        self._last_action = self._episode.act(self.config.deterministic, self.config.temperature)
        return self._given(self._last_action)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Return the most likely action at each prediction distance, (B,L,a): made at once, so less good than
        `select_action` at every frame."""
        self._see(batch)
        agent, targets = self.model, self._targets
        chunk = agent.actions.decode(agent.actions.mode(agent.policy_head(self._episode.agent_states)))
        self._last_action = chunk[:, 0]
        given = [self._given(action) for action in chunk.unbind(1)]
        if targets is not None:  # only the first action is known to be executed
            self._targets = given[0].to(targets)
        return torch.stack(given, dim=1)

    def forward(self, batch: dict[str, Tensor]):
        """Refuse: agents are trained by this package."""
        raise NotImplementedError("LeRobot cannot train a dreamer policy: use `dreamer train agent`, then export it.")

    def get_optim_params(self):
        """Return all parameters."""
        return self.parameters()

    def _see(self, batch: dict[str, Tensor]) -> None:
        frames, state = self._frames(batch), batch.get(OBS_STATE)
        if self._episode is not None and self._episode.batch_size != len(frames):
            self.reset()
        states = state if self.model.config.dynamics_config.state_dim else None
        if self._episode is not None:
            self._episode.observe(frames, self._last_action, states=states)
            return
        seeds = range(self._num_started, self._num_started + len(frames))
        self._num_started += len(frames)
        noise = [SeededNoise(self.config.seed + number) for number in seeds]
        states = None if states is None else states[:, None]
        given = {"tasks": self.task, "generator": noise, "states": states}
        self._episode = self.model.start(frames[:, None], **given, decode=False)
        if self.config.gives_targets and self._changes.any():
            self._targets = self._first_targets(state, len(frames))

    @property
    def _changes(self) -> np.ndarray:
        """Which components of an action the world takes as changes, bool (a,)."""
        space = self.model.actions.space
        return space.relative & ~space.discrete

    def _first_targets(self, state: Tensor | None, num_rows: int) -> Tensor:
        size = self.model.actions.space.size
        if state is None or tuple(state.shape) != (num_rows, size):
            found = "none" if state is None else f"one of shape {tuple(state.shape)}"
            raise ValueError(
                f"the world takes changes of a position, so the policy needs {OBS_STATE} of shape ({num_rows}, "
                f"{size}) to give positions, and got {found}: add the state to the observations, or set "
                "--policy.gives_targets=false for an environment that takes changes."
            )
        return state.float()

    def _given(self, action: Tensor) -> Tensor:
        """Return an action of the world as the environment takes it: where it is a change, the position to go to."""
        if self._targets is None:
            return action
        changes = torch.from_numpy(self._changes).to(action.device)
        targets = torch.where(changes, self._targets.to(action.device) + action, action)
        for bound, limit in ((self.config.target_low, torch.maximum), (self.config.target_high, torch.minimum)):
            if bound is not None:
                targets = limit(targets, torch.tensor(bound, device=targets.device))
        self._targets = targets
        return targets

    def _frames(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the frames, uint8 (B,3,H,W) or (B,V,3,H,W), in the world's size."""
        names = list(self.config.image_features)
        missing = [name for name in names if name not in batch]
        if missing:
            given = ", ".join(name for name in batch if "image" in name) or "none"
            raise ValueError(f"the observation lacks {', '.join(missing)} (images: {given}): use --rename_map.")
        frames = [self._resized(batch[name]) for name in names]
        return frames[0] if len(frames) == 1 else torch.stack(frames, dim=1)

    def _resized(self, images: Tensor) -> Tensor:
        """Return images (B,3,h,w) in [0, 1] as uint8 (B,3,H,W), resized as frames of training data are."""
        pixels = (images.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack([self._resize(np.ascontiguousarray(image)) for image in pixels])
        return torch.from_numpy(resized).permute(0, 3, 1, 2)


__all__ = ["DreamerPolicy"]

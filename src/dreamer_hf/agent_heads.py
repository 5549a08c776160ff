"""What an agent adds to a world: the agent tokens of a frame, the eye, and the heads that read both.

Source: arXiv 2509.24527, section 3.3.

Shapes: B rows, T frames, G agent tokens, D hidden size, N_z latent tokens, d_z latent channels, S state components, F
numbers that an agent sees of a frame, E of its eye, K = D + E that it knows, L prediction distances, W outputs of a
distance.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .configuration_dreamer_agent import DreamerAgentConfig
from .modeling_layers import DreamerRMSNorm

Tasks = Any
"""What an agent is to do, as every function takes it:

- the number of a task, or its name, for all rows;
- int64 (B,) numbers, or (B,T) if the task changes on the way;
- for an agent with `task_dim`, float (task_dim,), (B, task_dim) or (B,T, task_dim) vectors;
- None, for an agent of one task.
"""


class DreamerAgentTokens(nn.Module):
    """The G agent tokens of a frame as they enter the transformer: a learned base plus the embedding of the task."""

    def __init__(self, config: DreamerAgentConfig):
        super().__init__()
        self.config = config
        hidden_size = config.dynamics_config.hidden_size
        self.base = nn.Parameter(torch.empty(config.num_agent_tokens, hidden_size))
        if config.task_dim is None:
            self.task_embedding = nn.Embedding(config.num_tasks, hidden_size)
        else:
            self.task_proj = nn.Linear(config.task_dim, hidden_size)

    def forward(self, tasks: Tasks, batch: int, frames: int) -> torch.Tensor:
        """Return tokens (B,T,G,D).

        Raises:
            ValueError: tasks that the agent does not know, or of another shape.
        """
        tasks = prepare_tasks(tasks, batch, frames, self.config, self.base.device)
        if self.config.task_dim is None:
            embedded = self.task_embedding(tasks)
        else:
            embedded = self.task_proj(tasks.to(self.task_proj.weight.dtype))
        return self.base + embedded[:, :, None]


def prepare_tasks(
    tasks: Tasks, batch: int, frames: int, config: DreamerAgentConfig, device: torch.device
) -> torch.Tensor:
    """Return the task of every frame: int64 (B,T), or float32 (B,T, task_dim); see `Tasks`.

    Raises:
        ValueError: tasks that the agent does not know, or of another shape.
    """
    if config.task_dim is not None:
        return _task_vectors(tasks, batch, frames, config.task_dim, device)
    if tasks is None and config.num_tasks > 1:
        raise ValueError(f"the agent knows {config.num_tasks} tasks{_named(config)}: say which one it has to do.")
    if isinstance(tasks, str):
        if tasks not in (config.task_names or ()):
            raise ValueError(f"the agent does not know the task {tasks!r}: choose one of its tasks{_named(config)}.")
        tasks = config.task_names.index(tasks)
    numbers = torch.as_tensor(0 if tasks is None else tasks)
    if numbers.is_floating_point() or numbers.shape not in ((), (batch,), (batch, frames)):
        raise ValueError(
            f"expected tasks to be a number, or int numbers of shape ({batch},) or ({batch}, {frames}), got "
            f"{numbers.dtype} of shape {tuple(numbers.shape)}."
        )
    # Looking at numbers on a GPU would wait for it.
    if numbers.device.type == "cpu" and not 0 <= int(numbers.min()) <= int(numbers.max()) < config.num_tasks:
        raise ValueError(
            f"expected numbers of tasks from 0 to {config.num_tasks - 1}{_named(config)}, got {numbers.tolist()}."
        )
    numbers = numbers.to(device).long()
    return (numbers if numbers.ndim != 1 else numbers[:, None]).expand(batch, frames)


def _task_vectors(tasks: Tasks, batch: int, frames: int, task_dim: int, device: torch.device) -> torch.Tensor:
    if tasks is None or isinstance(tasks, str):
        raise ValueError(f"the tasks of this agent are vectors of {task_dim} numbers, got {tasks!r}.")
    vectors = torch.as_tensor(tasks, dtype=torch.float32)
    if vectors.shape not in ((task_dim,), (batch, task_dim), (batch, frames, task_dim)):
        raise ValueError(
            f"expected tasks of shape ({task_dim},), ({batch}, {task_dim}) or ({batch}, {frames}, {task_dim}), got "
            f"{tuple(vectors.shape)}."
        )
    vectors = vectors.to(device)
    return (vectors if vectors.ndim != 2 else vectors[:, None]).expand(batch, frames, task_dim)


def _named(config: DreamerAgentConfig) -> str:
    return f" ({', '.join(config.task_names)})" if config.task_names else ""


class DreamerAgentEye(nn.Module):
    """Reads the frame that the world predicts: what it shows, and where.

    An agent token looks at a frame through the attention of the world, which has few queries. Where things are does
    not fit through these while the world is frozen. The eye applies one small network to every latent token, and
    several looks choose among the tokens (attention pooling). What it learns at one place it knows at all others. It
    also sees the frame before, because a reward can be about what has changed.

    Args:
        config: the agent's.
    """

    def __init__(self, config: DreamerAgentConfig):
        super().__init__()
        dynamics, width = config.dynamics_config, config.eye_size
        self.config, self.num_looks = config, config.num_eye_looks
        self.token_proj = nn.Linear(2 * dynamics.latent_dim, width)
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, self.num_looks)
        self.value = nn.Linear(width, width)
        self.state_proj = nn.Linear(2 * dynamics.state_dim, width) if dynamics.state_dim else None
        self.places = nn.Parameter(torch.empty(2, dynamics.num_latent_tokens, width))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Return what the eye makes of frames, (..., E).

        Args:
            seen: (..., 2F), latents and state of the frame and of the one before; see `agent_rows.raw_agent_states`.
        """
        dynamics, (place, place_of_value) = self.config.dynamics_config, self.places
        size = dynamics.num_latent_tokens * dynamics.latent_dim
        frames = seen.to(self.places.dtype).chunk(2, dim=-1)
        latents, states = zip(*(frame.tensor_split([size], dim=-1) for frame in frames))
        tokens = torch.cat([each.unflatten(-1, (-1, dynamics.latent_dim)) for each in latents], dim=-1)
        tokens = self.token_proj(tokens) + place
        tokens = nn.functional.silu(tokens + self.hidden(nn.functional.silu(tokens)))
        weights = self.score(tokens).softmax(dim=-2)
        values = (self.value(tokens) + place_of_value).unflatten(-1, (self.num_looks, -1))
        looked = (weights[..., None] * values).sum(dim=-3).flatten(-2)
        return looked if self.state_proj is None else looked + self.state_proj(torch.cat(states, dim=-1))


class HeadOutput(nn.Linear):
    """The last layer of a head, which starts at zero: uniform actions, and rewards and values of 0."""


class DreamerAgentHead(nn.Module):
    """A small MLP with one last layer for each prediction distance.

    It begins with a norm of what the agent tokens became, because the transformer ends without one. What the eye sees
    needs none.

    Args:
        config: the agent's.
        num_outputs: W.
        num_steps: L.
    """

    def __init__(self, config: DreamerAgentConfig, num_outputs: int, num_steps: int = 1):
        super().__init__()
        dynamics = config.dynamics_config
        width = config.head_hidden_size or dynamics.hidden_size
        sizes = [dynamics.hidden_size + config.eye_size, *[width] * config.num_head_layers]
        self.norm = DreamerRMSNorm(dynamics.hidden_size, dynamics.rms_norm_eps)
        self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(sizes)])
        self.outputs = nn.ModuleList([HeadOutput(width, num_outputs) for _ in range(num_steps)])

    def forward(self, agent_states: torch.Tensor) -> torch.Tensor:
        """Return the outputs (..., L, W) float32 of all distances for agent states (..., K)."""
        hidden = self._hidden(agent_states)
        return torch.stack([output(hidden) for output in self.outputs], dim=-2).float()

    def nearest(self, agent_states: torch.Tensor) -> torch.Tensor:
        """Return the outputs (..., W) float32 of distance 0 alone."""
        return self.outputs[0](self._hidden(agent_states)).float()

    def _hidden(self, agent_states: torch.Tensor) -> torch.Tensor:
        size = self.norm.weight.shape[0]
        token, looked = agent_states.to(self.norm.weight.dtype).tensor_split([size], dim=-1)
        hidden = torch.cat([self.norm(token), looked], dim=-1)
        for layer in self.layers:
            hidden = nn.functional.silu(layer(hidden))
        return hidden


__all__ = [
    "DreamerAgentEye",
    "DreamerAgentHead",
    "DreamerAgentTokens",
    "HeadOutput",
    "Tasks",
    "prepare_tasks",
]

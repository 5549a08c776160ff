"""What an agent sees of a frozen world: computed once per window, it makes training the agent many times cheaper.

No token of the world attends to an agent token. The world's half of every layer is therefore the same whatever the
agent is, and a frozen world needs neither gradients nor a second look at the same window. Only the agent tokens, one
or a few of a frame's tokens, are computed again at every step.

Shapes: B windows, T frames, N world tokens of a frame, G agent tokens, D hidden size, L space layers, H_kv heads of
size h; an agent knows K numbers at a frame.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ..agent_rows import raw_agent_states
from ..data.windows import EpisodeWindows, collate_windows
from ..losses import FrameConditions
from ..modeling_dreamer_agent import DreamerAgentModel
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from .batches import Batch
from .randomness import seeded_generator

PREDICTED = ("predicted_latents", "predicted_states")
FRAMES = ("pixel_values_videos", "latents")
CACHED_WINDOWS = 3_000_000
"""Takes the place of a kind of batch in seeds: the noise of cached windows."""


WorldMemory = dict[str, torch.Tensor]
"""`world_memory` (B,L,T,N,2,H_kv,h), keys and values of the world's tokens, and its predictions: `PREDICTED`."""


@torch.no_grad()
def world_memory(
    dynamics: DreamerDynamicsModel,
    noisy: torch.Tensor,
    conditions: FrameConditions,
    states: torch.Tensor | None = None,
) -> WorldMemory:
    """Return what agent tokens can attend to, and what the agent's eye can see.

    Args:
        dynamics: the frozen model.
        noisy: latents (B,T,N_z,d_z) at their signal levels.
        conditions: their levels and actions.
        states: noisy normalized states (B,T,S), if the world has a state.
    """
    received: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden_states = args[0]
        space, _ = dynamics.transformer.layer_inputs(hidden_states, hidden_states.shape[2])
        received.append(module.keys_and_values(hidden_states, space["position_embeddings"]))

    layers = [layer for layer in dynamics.transformer.layers if not layer.self_attn.is_temporal]
    hooks = [layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        predicted = conditions.predict(dynamics, [noisy] if states is None else [noisy, states])
    finally:
        for hook in hooks:
            hook.remove()
    return {"world_memory": torch.stack(received, dim=1)} | dict(zip(PREDICTED, predicted))


def agent_states(agent: DreamerAgentModel, memory: WorldMemory, tasks: torch.Tensor) -> torch.Tensor:
    """Return what the agent knows at each frame, (B,T,K): `DreamerAgentModel.forward`'s `agent_states`.

    Args:
        agent: the agent, whose world is frozen.
        memory: from `world_memory`.
        tasks: (B,) int64.
    """
    transformer, attended = agent.world.dynamics.transformer, memory["world_memory"]
    batch, _, frames, num_tokens = attended.shape[:4]
    tokens = agent.agent_tokens(tasks, batch, frames)
    space, time = transformer.layer_inputs(tokens, num_tokens + tokens.shape[2])
    tables = tuple(table[num_tokens:] for table in space["position_embeddings"])
    world = iter(attended.to(tokens.dtype).unbind(1))
    for layer in transformer.layers:
        if layer.self_attn.is_temporal:
            tokens = layer(tokens, **time)
            continue
        tokens = tokens + layer.self_attn.attend_with(layer.input_layernorm(tokens), tables, next(world))
        tokens = tokens + layer.mlp(layer.post_attention_layernorm(tokens))
    return agent.known(raw_agent_states(tokens, *(memory[name] for name in PREDICTED if name in memory)))


class CachedWorld(Dataset):
    """Windows of a dataset with what a frozen world makes of them, computed once and kept in memory.

    Items are those of the dataset with a `WorldMemory` in float16 in place of frames or latents. A frame of the world
    that ships with the package takes 86 KB.

    Args:
        windows: the dataset, with latents.
        compute: `compute(batch, generators)` returns the memory of a batch, given a generator for each of its rows.
        seed: of the run; the noise of a window depends on it and on the window's number.
        progress: whether to show a progress bar.
    """

    BATCH = 8

    def __init__(
        self,
        windows: EpisodeWindows,
        compute: Callable[[Batch, list[torch.Generator]], WorldMemory],
        seed: int,
        progress: bool = True,
    ):
        self.windows, self._items = windows, []
        numbers = np.array_split(np.arange(len(windows)), -(-len(windows) // self.BATCH))
        for chosen in tqdm(numbers, "computing the frozen world", unit="batch", disable=not progress):
            items = [windows[int(number)] for number in chosen]
            generators = [seeded_generator("cpu", seed, CACHED_WINDOWS, int(number)) for number in chosen]
            memory = compute(collate_windows(items), generators)
            memory = {name: value.to("cpu", torch.float16) for name, value in memory.items()}
            for row, item in enumerate(items):
                kept = {name: value for name, value in item.items() if name not in FRAMES}
                self._items.append(kept | {name: value[row] for name, value in memory.items()})

    def with_window(self, window_size: int | None, stride: int = 1) -> "CachedWorld":
        """Return the dataset, whose windows are those that were cached."""
        if (window_size, stride) != (self.windows.window_size, self.windows.stride):
            raise ValueError("the windows of a cached world have one size: leave out long windows and images.")
        return self

    def episode_of(self, index: int) -> int:
        """Return the number, over all splits, of the episode that a window belongs to."""
        return self.windows.episode_of(index)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self._items[index]


__all__ = ["CachedWorld", "WorldMemory", "agent_states", "world_memory"]

"""Open-loop dreams of held-out episodes, under the recorded actions and under wrong ones.

Shapes: B episodes, T frames, C context frames, F dream frames, N latent tokens, d latent channels, S state components,
H, W pixels, a action components.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..camera_views import decode_cameras, encode_cameras
from ..data import ShardDataset
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel

REAL = "real"
DREAM, REPEAT, OTHERS, ZEROED, TOKENIZER = "dream", "repeat", "other_actions", "zeroed_actions", "tokenizer"
TRUE_LATENTS = "true_latents"
CANDIDATES = {
    DREAM: "dream",
    REPEAT: "repeat the last frame",
    OTHERS: "another episode's actions",
    ZEROED: "actions zeroed",
    TOKENIZER: "tokenizer alone",
}
"""Titles of what is compared with the real frames: the dream, its baselines, and its upper bound."""
STATE_CANDIDATES = {name: CANDIDATES[name] for name in (DREAM, REPEAT, OTHERS, ZEROED)}
STATE_CANDIDATES[TRUE_LATENTS] = "given the true latents"
"""Likewise for the state."""
TOKENIZER_BATCH = 8
"""Clips that the tokenizer processes at a time: its memory grows with clips times frames times patches."""


@dataclass(frozen=True)
class Clips:
    """Clips of real episodes in latent space. The first frames are context, the others are to be dreamed.

    Attributes:
        latents: (B, T, N, d) clean latents of all frames.
        actions: (B, T, a) raw actions; `actions[:, i]` belongs to frame i.
        action_mask: (B, T) bool, False where a frame has no action.
        num_context_frames: C; F is T - C.
        states: (B, T, S) in the units of the data; None (the default) if there are none.
        state_mask: (B, T) bool, False where a frame has no state.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor
    num_context_frames: int
    states: torch.Tensor | None = None
    state_mask: torch.Tensor | None = None

    def rows(self, rows: slice) -> "Clips":
        """Return some of the clips."""
        parts = {name: part[rows] for name, part in vars(self).items() if isinstance(part, torch.Tensor)}
        return replace(self, **parts)

    def with_other_actions(self) -> "Clips":
        """Return the same clips, to be dreamed under the actions of the next clip (for the last clip: of the first).

        A permutation in time would not do: it keeps the sum of relative actions, and with it where the agent ends up.
        """
        return self.with_future_actions(self.actions.roll(-1, 0), self.action_mask.roll(-1, 0))

    def with_zeroed_actions(self, is_relative: torch.Tensor) -> "Clips":
        """Return the same clips, to be dreamed under actions that change nothing.

        Args:
            is_relative: (a,) bool. A relative component becomes 0. An absolute one, for which 0 is a position like any
                other, keeps its last value in the context.
        """
        last = self.actions[:, self.num_context_frames - 1 : self.num_context_frames].expand_as(self.actions)
        return self.with_future_actions(torch.where(is_relative, 0.0, last), self.action_mask)

    def with_future_actions(self, actions: torch.Tensor, mask: torch.Tensor) -> "Clips":
        """Return the same clips, to be dreamed under the actions (B, T, a) and their mask (B, T) after the context."""
        context = self.num_context_frames
        return replace(
            self,
            actions=torch.cat([self.actions[:, :context], actions[:, context:]], dim=1),
            action_mask=torch.cat([self.action_mask[:, :context], mask[:, context:]], dim=1),
        )


@dataclass(frozen=True)
class DreamedFrames:
    """What was dreamed after the context frames of some clips.

    Attributes:
        latents: (B, F, N, d).
        states: (B, F, S) in the units of the data; None if the world has no state.
    """

    latents: torch.Tensor
    states: torch.Tensor | None = None


def dream_clips(
    dynamics: DreamerDynamicsModel,
    clips: Clips,
    generator: torch.Generator,
    on_frame: Callable[[], object] | None = None,
    knows_latents: bool = False,
) -> DreamedFrames:
    """Dream what follows the context frames, in open loop.

    Args:
        dynamics: the model.
        clips: the context frames, and the actions to dream under.
        generator: source of all noise. In the same state it gives the same noise, so that only the actions differ.
        on_frame: called after every frame, for example to update a progress bar.
        knows_latents: whether every frame has its true latents, so that only the state is dreamed. Defaults to False.
    """
    context = slice(0, clips.num_context_frames)
    states = {}
    if dynamics.config.state_dim and clips.states is not None:
        states = {"states": clips.states[:, context], "state_mask": clips.state_mask[:, context]}
    rollout = dynamics.start_rollout(
        clips.latents[:, context],
        clips.actions[:, context],
        clips.action_mask[:, context],
        generator=generator,
        **states,
    )
    outputs = []
    for index in range(clips.num_context_frames, clips.latents.shape[1]):
        known = clips.latents[:, index] if knows_latents else None
        outputs.append(rollout.step(clips.actions[:, index], clips.action_mask[:, index], known_latents=known))
        if on_frame is not None:
            on_frame()
    latents = torch.stack([output.latents for output in outputs], dim=1)
    states = torch.stack([output.state for output in outputs], dim=1) if dynamics.config.state_dim else None
    return DreamedFrames(latents, states)


def held_out_clips(
    tokenizer: DreamerTokenizerModel, data: ShardDataset, num_context_frames: int, num_dream_frames: int, count: int
) -> tuple[torch.Tensor, Clips]:
    """Return the first frames of the first `count` episodes that are long enough.

    Args:
        tokenizer: encodes the frames.
        data: episodes of frames that fit the world (see `check_data_fits`).
        num_context_frames, num_dream_frames: C and F.
        count: maximum number of episodes.

    Returns:
        Frames (B, T, 3, H, W) uint8, and the clips.

    Raises:
        ValueError: no episode has C + F frames.
    """
    positions = long_episodes(data, num_context_frames + num_dream_frames, count)
    return read_clips(tokenizer, data, positions, num_context_frames, num_dream_frames)


def long_episodes(data: ShardDataset, num_frames: int, count: int) -> list[int]:
    """Return the positions of the first `count` episodes that have `num_frames` frames.

    Raises:
        ValueError: none has.
    """
    long_enough = [position for position, length in enumerate(data.episode_lengths) if length >= num_frames]
    if not long_enough:
        raise ValueError(
            f"no held-out episode has {num_frames} frames, the longest has {max(data.episode_lengths)}: "
            "choose a smaller --num_context_frames or --num_dream_frames."
        )
    return long_enough[:count]


def read_clips(
    tokenizer: DreamerTokenizerModel,
    data: ShardDataset,
    positions: Sequence[int],
    num_context_frames: int,
    num_dream_frames: int,
) -> tuple[torch.Tensor, Clips]:
    """Return the first frames (B, T, 3, H, W) uint8 of some episodes, which are long enough, and the clips."""
    items = [data.window(position, 0, num_context_frames + num_dream_frames) for position in positions]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    frames = batch.pop("pixel_values_videos")
    return frames, Clips(encode_frames(tokenizer, frames), num_context_frames=num_context_frames, **batch)


def encode_frames(tokenizer: DreamerTokenizerModel, frames: torch.Tensor) -> torch.Tensor:
    """Encode frames (B, T, 3, H, W), uint8 or float in [0, 1], to latents (B, T, N, d), float32 on the CPU."""
    chunks = frames.split(TOKENIZER_BATCH)
    return torch.cat([encode_cameras(tokenizer, chunk).latents.float().cpu() for chunk in chunks])


def decode_latents(tokenizer: DreamerTokenizerModel, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents (B, T, N, d) to frames (B, T, 3, H, W) in [0, 1], on the CPU."""
    chunks = latents.split(TOKENIZER_BATCH)
    return torch.cat([decode_cameras(tokenizer, chunk).cpu() for chunk in chunks])


__all__ = [
    "CANDIDATES",
    "DREAM",
    "OTHERS",
    "REAL",
    "REPEAT",
    "STATE_CANDIDATES",
    "TOKENIZER",
    "TRUE_LATENTS",
    "ZEROED",
    "Clips",
    "DreamedFrames",
    "decode_latents",
    "dream_clips",
    "encode_frames",
    "held_out_clips",
    "long_episodes",
    "read_clips",
]

"""Dreams of held-out episodes under their own and under wrong actions: what every measure of a world is made of.

Shapes: B episodes, T frames, C given frames, F dreamt frames, N latent tokens, d latent channels, H, W pixels, a action
width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..data import ShardDataset
from ..modeling_dreamer_dynamics import DreamerDynamicsModel
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..modeling_dreamer_world import DreamerWorldModel

REAL = "real"
DREAM, REPEAT, OTHERS, ZEROED, TOKENIZER = "dream", "repeat", "other_actions", "zeroed_actions", "tokenizer"
CANDIDATES = {
    DREAM: "dream",
    REPEAT: "repeat the last frame",
    OTHERS: "another episode's actions",
    ZEROED: "actions zeroed",
    TOKENIZER: "tokenizer alone",
}
"""Titles of what is compared with the real frames: the dream, its floors, and its ceiling."""
TOKENIZED_AT_ONCE = 8
"""Clips that the tokenizer takes at a time: its memory grows with clips times frames times patches."""


@dataclass(frozen=True)
class Clips:
    """Clips of real episodes in latent space, of which the first frames are given and the others are to be dreamt.

    Attributes:
        latents: (B,T,N,d) clean latents of all frames.
        actions: (B,T,a) raw and aligned.
        action_mask: (B,T) bool, False where a frame has no action.
        num_given: C; F is T - C.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor
    num_given: int

    def rows(self, rows: slice) -> "Clips":
        """Some of the clips."""
        return replace(
            self, latents=self.latents[rows], actions=self.actions[rows], action_mask=self.action_mask[rows]
        )

    def with_actions_of_others(self) -> "Clips":
        """The same clips, to be dreamt under what the next clip was told (the last one: the first).

        Another episode's actions, not a permutation in time: that would leave the sum of relative actions, and so
        where the agent ends up, as it is.
        """
        return self._with_future(self.actions.roll(-1, 0), self.action_mask.roll(-1, 0))

    def with_actions_zeroed(self, is_relative: torch.Tensor) -> "Clips":
        """The same clips, to be dreamt under commands to do nothing.

        Args:
            is_relative: (a,) bool. A relative component becomes 0, no change; an absolute one, for which 0 is a place
                like any other, stays at the last value that was given.
        """
        last = self.actions[:, self.num_given - 1 : self.num_given].expand_as(self.actions)
        still = torch.where(is_relative, torch.zeros_like(last), last)
        return self._with_future(still, self.action_mask)

    def _with_future(self, actions: torch.Tensor, mask: torch.Tensor) -> "Clips":
        given = slice(0, self.num_given)
        future = slice(self.num_given, None)
        return replace(
            self,
            actions=torch.cat([self.actions[:, given], actions[:, future]], dim=1),
            action_mask=torch.cat([self.action_mask[:, given], mask[:, future]], dim=1),
        )


def dream(
    dynamics: DreamerDynamicsModel,
    clips: Clips,
    generator: torch.Generator,
    on_frame: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Dreams what follows the given frames, open loop: (B,F,N,d) latents.

    Args:
        dynamics: the model.
        clips: what is given, and the actions to dream under.
        generator: of all noise. In the same state it gives the same noise, so that only the actions differ.
        on_frame: called after every frame, as for a progress bar.
    """
    given = slice(0, clips.num_given)
    rollout = dynamics.start_rollout(
        clips.latents[:, given], clips.actions[:, given], clips.action_mask[:, given], generator=generator
    )
    frames = []
    for index in range(clips.num_given, clips.latents.shape[1]):
        frames.append(rollout.step(clips.actions[:, index], clips.action_mask[:, index]).latents)
        if on_frame is not None:
            on_frame()
    return torch.stack(frames, dim=1)


def check_data_fits(world: DreamerWorldModel, data: ShardDataset) -> None:
    """Raises:
    ValueError: image size, action width, rate or alignment of data and world differ; the sentence names both.
    """
    tokenizer, dynamics = world.config.tokenizer_config, world.config.dynamics_config
    if data.image_size is None:
        raise ValueError(f"{data.data_dir} holds latents: give the folder of frames that they were made from.")
    pairs = {
        "image size": (tokenizer.frame_size, tuple(data.image_size)),
        "action width": (dynamics.action_dim, data.action_dim),
        # Some writers store pairs that are shifted already; reading shifts them once more.
        "action_offset": (dynamics.action_offset, data.action_offset + data.metadata.action_offset),
    }
    if dynamics.fps is not None and data.fps is not None:
        pairs["frame rate"] = (float(dynamics.fps), float(data.fps))
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ValueError(f"the world has {name} {ours} but the data has {theirs}: convert the data to match.")


def held_out_clips(
    world: DreamerWorldModel, data: ShardDataset, num_given: int, num_dreamt: int, num_episodes: int
) -> tuple[torch.Tensor, Clips]:
    """The beginnings of the first `num_episodes` episodes that are long enough: frames (B,T,3,H,W) uint8, and clips.

    Raises:
        ValueError: the data do not fit the world, or no episode is long enough.
    """
    check_data_fits(world, data)
    num_frames = num_given + num_dreamt
    long_enough = [i for i, length in enumerate(data.episode_lengths) if length >= num_frames]
    if not long_enough:
        raise ValueError(
            f"no held-out episode has {num_frames} frames, the longest has {max(data.episode_lengths)}: "
            "dream fewer frames or start from fewer."
        )
    items = [data.window(position, 0, num_frames) for position in long_enough[:num_episodes]]
    frames, actions, mask = (torch.stack([item[key] for item in items]) for key in items[0])
    return frames, Clips(encode_frames(world.tokenizer, frames), actions, mask, num_given)


def encode_frames(tokenizer: DreamerTokenizerModel, frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames, or float ones in [0, 1], (B,T,3,H,W) -> latents (B,T,N,d) float32."""
    parts = []
    for chunk in frames.split(TOKENIZED_AT_ONCE):
        pixels = chunk.to(tokenizer.device)
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        parts.append(tokenizer.encode(pixels).latents.float().cpu())
    return torch.cat(parts)


def decode_latents(tokenizer: DreamerTokenizerModel, latents: torch.Tensor) -> torch.Tensor:
    """Latents (B,T,N,d) -> frames (B,T,3,H,W) in [0, 1]."""
    chunks = latents.split(TOKENIZED_AT_ONCE)
    return torch.cat([tokenizer.decode(chunk.to(tokenizer.device)).pixel_values_videos.cpu() for chunk in chunks])


def relative_components(data: ShardDataset) -> torch.Tensor:
    """(a,) bool: which components of the data's actions are changes, not places, by what the conversion noted."""
    is_relative = torch.full((data.action_dim,), data.metadata.relative_actions)
    is_relative[(data.metadata.conversion or {}).get("absolute_action_dims") or []] = False
    return is_relative

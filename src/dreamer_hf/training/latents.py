"""Latents of whole episodes, computed once by the frozen tokenizer and kept in memory.

Shapes: T frames of a window, N latent tokens, C latent channels, A action dimensions.
"""

import copy

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from ..data import ShardDataset
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from .data import as_pixels

ENCODED_FRAMES = 64
"""Frames that go through the encoder together."""


class LatentDataset(Dataset):
    """The windows of a `ShardDataset`, with float16 `latents` (T,N,C) in place of frames.

    Every episode is encoded from its first frame on, as a rollout encodes its context: a window in the middle of an
    episode holds latents that know what came before it. On PushT at 64 pixels an hour of video takes 18 MB.

    Args:
        dataset: the windows, of frames.
        tokenizer: the frozen tokenizer, on the device that encodes.
        progress: show a progress bar.
    """

    def __init__(self, dataset: ShardDataset, tokenizer: DreamerTokenizerModel, progress: bool = True):
        positions = range(dataset.num_episodes)
        bar = tqdm(positions, desc="encoding episodes", unit="episode", disable=not progress, dynamic_ncols=True)
        self.episodes = [_encoded(dataset.episode(position), tokenizer) for position in bar]
        self.episode_ids = dataset.episode_ids
        self._set_window(dataset.window_size, dataset.stride)

    def with_window(self, window_size: int, stride: int = 1) -> "LatentDataset":
        """The same episodes in windows of another size; nothing is encoded again."""
        other = copy.copy(self)
        other._set_window(window_size, stride)
        return other

    def _set_window(self, window_size: int, stride: int) -> None:
        self.windows = [
            (number, slice(start, start + window_size))
            for number, episode in enumerate(self.episodes)
            for start in range(0, len(episode["latents"]) - window_size + 1, stride)
        ]

    def episode_of(self, index: int) -> int:
        """The episode that a window lies in, numbered over all splits."""
        return int(self.episode_ids[self.windows[index][0]])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        episode, frames = self.windows[index]
        return {name: values[frames] for name, values in self.episodes[episode].items()}


def _encoded(item: dict[str, torch.Tensor], tokenizer: DreamerTokenizerModel) -> dict[str, torch.Tensor]:
    latents = encode_episode(item["pixel_values_videos"], tokenizer)
    return {"latents": latents, "actions": item["actions"], "action_mask": item["action_mask"]}


@torch.no_grad()
def encode_episode(frames: torch.Tensor, tokenizer: DreamerTokenizerModel) -> torch.Tensor:
    """uint8 frames (T,3,H,W) of a whole episode -> its latents (T,N,C), float16 on the CPU."""
    cache = tokenizer.new_encoder_cache()
    chunks = frames.split(ENCODED_FRAMES)
    latents = [tokenizer.encode(as_pixels(chunk.to(tokenizer.device))[None], cache).latents[0] for chunk in chunks]
    return torch.cat(latents).to("cpu", torch.float16)

"""Latents of whole episodes, computed once by the frozen tokenizer: kept in memory, or written as shards.

Shapes: T frames of a window, N latent tokens, C latent channels, A action dimensions.
"""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset
from tqdm import tqdm

from ..data import ShardDataset
from ..data.files import read_json, remove_leftovers, write_json
from ..data.shard_writer import write_shard
from ..data.shards import LATENTS, METADATA_NAME, ShardIndex, read_shard_index, shard_name
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from .batches import as_pixels

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


PLAN_NAME = "encoding.json"


def encode_shards(
    accelerator: Accelerator, tokenizer: DreamerTokenizerModel, data_dir: str, output_dir: str | Path, resume: bool
) -> Path:
    """Encodes all episodes of `data_dir` into `output_dir` and returns that folder.

    Args:
        accelerator: tells which of how many processes this is.
        tokenizer: frozen, in eval mode, on the accelerator's device.
        data_dir: shards of frames.
        output_dir: new or empty folder, or that of an interrupted run with `resume`.
        resume: keep the shards that are there already.

    Raises:
        FileExistsError: the folder is not empty, or finished already.
        FileNotFoundError, ValueError, OSError: data that is missing, damaged or of another size; a full disk; an
            interrupted run with another tokenizer.
    """
    # The stored pairs of frame and action stay raw (offset 0): readers align.
    data = ShardDataset(data_dir, None, split="all", action_offset=0)
    _check_frames(data, tokenizer)
    output_dir, fingerprint = Path(output_dir), tokenizer.fingerprint()
    if accelerator.is_main_process:
        _claim(output_dir, {"source": str(data_dir), "tokenizer_fingerprint": fingerprint}, resume)
    accelerator.wait_for_everyone()
    shards = range(accelerator.process_index, data.metadata.num_shards, accelerator.num_processes)
    todo = [shard for shard in shards if not (output_dir / shard_name(shard)).exists()]
    positions = {shard: np.flatnonzero(data.episode_shards == shard) for shard in todo}
    frames = sum(int(data.episode_lengths[chosen].sum()) for chosen in positions.values())
    with tqdm(total=frames, desc="encoding", unit="frame", disable=not accelerator.is_main_process) as bar:
        for shard, chosen in positions.items():
            _encode_shard(tokenizer, data, output_dir / shard_name(shard), chosen, bar)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _finish(data, output_dir, tokenizer, fingerprint)
    return output_dir


def _check_frames(data: ShardDataset, tokenizer: DreamerTokenizerModel) -> None:
    size = tokenizer.config.frame_size
    if data.image_size is None:
        raise ValueError(f"{data.data_dir} holds latents already: give a folder of frames.")
    if data.image_size != size:
        raise ValueError(
            f"the tokenizer takes frames of {size[1]}x{size[0]} pixels but {data.data_dir} has "
            f"{data.image_size[1]}x{data.image_size[0]}: convert the data at that size."
        )


def _claim(output_dir: Path, plan: dict, resume: bool) -> None:
    """Takes an empty folder, or makes sure that the one there belongs to this very encoding."""
    output_dir.mkdir(parents=True, exist_ok=True)
    if (output_dir / METADATA_NAME).exists():
        raise FileExistsError(f"{output_dir} holds finished shards: choose another --output_dir.")
    if not any(output_dir.iterdir()):
        write_json(output_dir / PLAN_NAME, plan)
        return
    if not resume or not (output_dir / PLAN_NAME).exists():
        raise FileExistsError(f"{output_dir} is not empty: choose another --output_dir, or go on with --resume.")
    if read_json(output_dir / PLAN_NAME) != plan:
        raise ValueError(f"{output_dir} was begun with other data or another tokenizer: choose another --output_dir.")


def _encode_shard(tokenizer, data: ShardDataset, path: Path, positions: np.ndarray, bar: tqdm) -> None:
    with write_shard(path, data.action_dim, kind=LATENTS) as writer:
        for position in positions:
            item = data.episode(int(position))
            writer.begin_episode(int(data.source_episodes[position]))
            for frame in encode_episode(item["pixel_values_videos"], tokenizer).numpy():
                writer.add_frame(frame)
            # An episode without any action stays unlabelled.
            writer.end_episode(item["actions"].numpy() if item["action_mask"].any() else None)
            bar.update(len(item["actions"]))


def _finish(data: ShardDataset, output_dir: Path, tokenizer: DreamerTokenizerModel, fingerprint: str) -> None:
    """Writes index and metadata: the folder is complete."""
    remove_leftovers(output_dir)
    shards = range(data.metadata.num_shards)
    ShardIndex.join([read_shard_index(output_dir / shard_name(shard), shard) for shard in shards]).write(output_dir)
    latent_shape = (tokenizer.config.num_latent_tokens, tokenizer.config.latent_dim)
    replace(data.metadata, image_shape=None, latent_shape=latent_shape, tokenizer_fingerprint=fingerprint).write(
        output_dir
    )

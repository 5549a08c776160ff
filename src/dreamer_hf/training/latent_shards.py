"""Runs a frozen tokenizer once over a folder of shards and writes the latents as shards of their own.

Every shard of frames becomes one shard of latents with the same episodes in the same order, so splits and windows stay
what they are. Processes share the shards out among each other; a shard appears under its name only when it is whole,
so an interrupted run goes on with the missing ones.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from ..data import ShardDataset
from ..data.files import read_json, remove_leftovers, write_json
from ..data.shard_format import LATENTS, METADATA_NAME, ShardIndex, read_shard_index, shard_name
from ..data.shard_writer import write_shard
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from .latents import encode_episode

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

"""Latents of whole episodes, computed once by the frozen tokenizer: kept in memory, or written as shards.

Every shard of frames becomes one shard of latents with the same episodes in the same order, so splits and windows stay
the same. Processes share the shards among each other. A shard appears under its name only when it is complete, so an
interrupted run continues with the missing ones.

Shapes: T frames of a window, N latent tokens, C latent channels, A action dimensions.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..camera_views import encode_cameras
from ..data import ShardDataset
from ..data.files import write_json
from ..data.output_folder import OutputFolder, output_folder
from ..data.shard_writer import prepare_shard
from ..data.shards import INDEX_NAME, LATENTS, METADATA_NAME, ShardIndex, shard_index_of, shard_name
from ..data.windows import EpisodeWindows
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from .encode_options import EncodeOptions
from .finetune import TOKENIZER, load_model

ENCODED_FRAMES = 64
"""Number of frames that go through the encoder together."""


class LatentDataset(EpisodeWindows):
    """The windows of another dataset, with float16 `latents` (T,N,C) in place of frames.

    Every episode is encoded from its first frame on, as a rollout encodes its context, so that the latents of a window
    in the middle of an episode depend on the frames before it. An hour of PushT video at 64 pixels takes 18 MB.

    Args:
        frames: windows of frames.
        tokenizer: the frozen tokenizer, on the device that encodes.
        progress: show a progress bar.
    """

    def __init__(self, frames: EpisodeWindows, tokenizer: DreamerTokenizerModel, progress: bool = True):
        super().__init__(frames._name, frames._all_lengths, frames.action_dim, frames.spec, frames.state_dim)
        self.camera_names, self.labels = frames.camera_names, frames.labels
        self._latents, self._actions, self._states = {}, {}, {}
        bar = tqdm(self.episode_ids, "encoding episodes", unit="episode", disable=not progress, dynamic_ncols=True)
        for position, episode in enumerate(map(int, bar)):
            video = frames.episode(position)["pixel_values_videos"]
            self._latents[episode] = encode_episode(video, tokenizer)
            self._actions[episode] = frames._read_actions(episode, 0, len(video))
            self._states[episode] = frames._read_states(episode, 0, len(video)) if frames.state_dim else None

    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        return {"latents": self._latents[episode][start:stop]}

    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        actions = self._actions[episode]
        return None if actions is None else actions[start:stop]

    def _read_states(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        states = self._states[episode]
        return None if states is None else states[start:stop]


@torch.no_grad()
def encode_episode(frames: torch.Tensor, tokenizer: DreamerTokenizerModel) -> torch.Tensor:
    """Encode the uint8 frames (T,3,H,W), or (T,V,3,H,W), of a whole episode to latents (T,N,C), float16 on the CPU."""
    cache = tokenizer.new_encoder_cache(1 if frames.ndim == 4 else frames.shape[1])
    chunks = frames.split(ENCODED_FRAMES)
    latents = [encode_cameras(tokenizer, chunk[None], cache).latents[0] for chunk in chunks]
    return torch.cat(latents).to("cpu", torch.float16)


PLAN_NAME = "encoding.json"


def encode_latents(options: EncodeOptions) -> str | None:
    """Encode a folder of shards as the options say, in as many processes as `accelerate launch` started.

    Raises:
        ValueError, OSError: see `encode_shards`.
    """
    accelerator = Accelerator()
    tokenizer = load_model(options.tokenizer, TOKENIZER).eval().to(accelerator.device)
    folder = encode_shards(accelerator, tokenizer, options.data_dir, options.output_dir, options.resume)
    return f"wrote latents to {folder}" if accelerator.is_main_process else None


def encode_shards(
    accelerator: Accelerator,
    tokenizer: DreamerTokenizerModel,
    data_dir: str,
    output_dir: str | Path,
    resume: bool,
) -> OutputFolder:
    """Encode all episodes of `data_dir` into `output_dir` and return that folder.

    Args:
        accelerator: knows the number of this process and of all processes.
        tokenizer: frozen, in eval mode, on the accelerator's device.
        data_dir: shards of frames.
        output_dir: new or empty folder, or that of an interrupted run with `resume`; or an address of fsspec.
        resume: keep the shards that exist already.

    Raises:
        BlockingIOError: another running process writes to the folder.
        FileExistsError: the folder is not empty, or finished already.
        FileNotFoundError, ValueError, OSError: data that is missing, damaged or of another size; a full disk; an
            interrupted run with another tokenizer.
    """
    data, folder, fingerprint = open_frames(data_dir, tokenizer), output_folder(output_dir), tokenizer.fingerprint()
    with ExitStack() as stack:
        if accelerator.is_main_process:
            folder.make()
            stack.enter_context(folder.lock())
            claim_folder(folder, data_dir, fingerprint, resume)
        accelerator.wait_for_everyone()
        shards = missing_shards(data, folder)[accelerator.process_index :: accelerator.num_processes]
        frames = sum(int(data.episode_lengths[data.episode_shards == shard].sum()) for shard in shards)
        with tqdm(total=frames, desc="encoding", unit="frame", disable=not accelerator.is_main_process) as bar:
            for shard in shards:
                for encoded in encode_shard(tokenizer, data, folder, shard):
                    bar.update(encoded)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            finish_folder(data, folder, tokenizer, fingerprint)
    return folder


def open_frames(data_dir: str, tokenizer: DreamerTokenizerModel) -> ShardDataset:
    """Open the episodes of frames that a tokenizer is to encode.

    Raises:
        FileNotFoundError, ValueError: they are missing, latents already, or of another size.
    """
    # The stored pairs of frame and action stay as recorded (offset 0): readers align them.
    data, size = ShardDataset(data_dir, None, split="all", action_offset=0), tokenizer.config.frame_size
    if data.image_size is None:
        raise ValueError(f"{data.data_dir} holds latents already: give a folder of frames.")
    if data.image_size != size:
        raise ValueError(
            f"the tokenizer takes frames of {size[1]}x{size[0]} pixels but {data.data_dir} has "
            f"{data.image_size[1]}x{data.image_size[0]}: convert the data at that size."
        )
    return data


def claim_folder(folder: OutputFolder, data_dir: str, fingerprint: str, resume: bool) -> None:
    """Take an empty folder, or make sure that an existing one belongs to the same encoding."""
    names, plan = folder.names(), {"source": str(data_dir), "tokenizer_fingerprint": fingerprint}
    if METADATA_NAME in names:
        raise FileExistsError(f"{folder} holds finished shards: choose another --output_dir.")
    if not names and not folder.leftovers():
        with folder.writing(PLAN_NAME) as local:
            write_json(local / PLAN_NAME, plan)
        return
    if not resume or PLAN_NAME not in names:
        raise FileExistsError(f"{folder} is not empty: choose another --output_dir, or continue with --resume.")
    if folder.read_json(PLAN_NAME) != plan:
        raise ValueError(f"{folder} was started with other data or another tokenizer: choose another --output_dir.")


def missing_shards(data: ShardDataset, folder: OutputFolder) -> list[int]:
    """Return the shards of some data whose latents are not in a folder yet."""
    names = folder.names()
    return [shard for shard in range(data.metadata.num_shards) if shard_name(shard) not in names]


def encode_shard(
    tokenizer: DreamerTokenizerModel, data: ShardDataset, folder: OutputFolder, shard: int
) -> Iterator[int]:
    """Encode the episodes of one shard, which then appears in a folder; yield the number of frames of each."""
    name, task_names, recorded = shard_name(shard), data.metadata.reward_names or (), {}
    positions = np.flatnonzero(data.episode_shards == shard)
    if task_names:
        recorded = dict(zip(positions.tolist(), data.recorded_rewards(shard), strict=True))
    layout = {"kind": LATENTS, "state_dim": data.state_dim, "num_tasks": len(task_names)}
    with prepare_shard(folder.place(name), data.action_dim, **layout) as writer:
        for position in positions:
            item = data.episode(int(position))
            writer.begin_episode(int(data.source_episodes[position]))
            for frame in encode_episode(item["pixel_values_videos"], tokenizer).numpy():
                writer.add_frame(frame)
            # An episode without any action or state stays without.
            actions = item["actions"].numpy() if item["action_mask"].any() else None
            has_state = data.state_dim and item["state_mask"].any()
            states = item["states"].numpy() if has_state else None
            writer.end_episode(actions, states, recorded.get(int(position)))
            yield len(item["actions"])
    folder.publish(name)


def finish_folder(
    data: ShardDataset, folder: OutputFolder, tokenizer: DreamerTokenizerModel, fingerprint: str
) -> None:
    """Write index and metadata, which complete the folder."""
    folder.remove_leftovers()
    parts = []
    for shard in range(data.metadata.num_shards):
        with folder.open_shard(shard_name(shard)) as file:
            parts.append(shard_index_of(file, Path(str(folder), shard_name(shard)), shard))
    with folder.writing(INDEX_NAME) as local:
        ShardIndex.join(parts).write(local)
    latent_shape = (data.metadata.num_cameras * tokenizer.config.num_latent_tokens, tokenizer.config.latent_dim)
    latents = {"image_shape": None, "latent_shape": latent_shape, "tokenizer_fingerprint": fingerprint}
    with folder.writing(METADATA_NAME) as local:
        replace(data.metadata, **latents).write(local)

"""Latents of whole episodes, computed once by the frozen tokenizer: kept in memory, or written as shards.

Every shard of frames becomes one shard of latents with the same episodes in the same order, so splits and windows stay
the same. Processes share the shards among each other. A shard appears under its name only when it is complete, so an
interrupted run continues with the missing ones.

Shapes: T frames of a window, N latent tokens, C latent channels, A action dimensions.
"""

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..camera_views import encode_cameras
from ..data import ShardDataset
from ..data.files import lock_folder, read_json, remove_leftovers, write_json
from ..data.shard_writer import write_shard
from ..data.shards import LATENTS, METADATA_NAME, ShardIndex, read_shard_index, shard_name
from ..data.windows import EpisodeWindows
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
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


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Encode a folder of shards as the command line says; `argv` is `sys.argv[1:]` if not given.

    Raises:
        ValueError, OSError: see `encode_shards`.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Encode a folder of shards once with a frozen tokenizer: dynamics training then reads latents "
        "instead of frames. They carry the fingerprint of the tokenizer; training refuses them with any other one.",
    )
    parser.add_argument("--tokenizer", required=True, help="tokenizer or world: a folder or a Hub repository")
    parser.add_argument("--data_dir", required=True, help="shard folder of frames")
    parser.add_argument("--output_dir", required=True, help="new or empty folder for the latents")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run; finished shards stay")
    arguments = parser.parse_args(argv)
    accelerator = Accelerator()
    tokenizer = load_model(arguments.tokenizer, TOKENIZER).eval().to(accelerator.device)
    folder = encode_shards(accelerator, tokenizer, arguments.data_dir, arguments.output_dir, arguments.resume)
    accelerator.print(f"wrote latents to {folder}")


def encode_shards(
    accelerator: Accelerator, tokenizer: DreamerTokenizerModel, data_dir: str, output_dir: str | Path, resume: bool
) -> Path:
    """Encode all episodes of `data_dir` into `output_dir` and return that folder.

    Args:
        accelerator: knows the number of this process and of all processes.
        tokenizer: frozen, in eval mode, on the accelerator's device.
        data_dir: shards of frames.
        output_dir: new or empty folder, or that of an interrupted run with `resume`.
        resume: keep the shards that exist already.

    Raises:
        BlockingIOError: another running process writes to the folder.
        FileExistsError: the folder is not empty, or finished already.
        FileNotFoundError, ValueError, OSError: data that is missing, damaged or of another size; a full disk; an
            interrupted run with another tokenizer.
    """
    # The stored pairs of frame and action stay as recorded (offset 0): readers align them.
    data = ShardDataset(data_dir, None, split="all", action_offset=0)
    _check_frames(data, tokenizer)
    output_dir, fingerprint = Path(output_dir), tokenizer.fingerprint()
    with ExitStack() as stack:
        if accelerator.is_main_process:
            output_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_folder(output_dir))
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
    """Take an empty folder, or make sure that an existing one belongs to the same encoding."""
    if (output_dir / METADATA_NAME).exists():
        raise FileExistsError(f"{output_dir} holds finished shards: choose another --output_dir.")
    if not any(output_dir.iterdir()):
        write_json(output_dir / PLAN_NAME, plan)
        return
    if not resume or not (output_dir / PLAN_NAME).exists():
        raise FileExistsError(f"{output_dir} is not empty: choose another --output_dir, or continue with --resume.")
    if read_json(output_dir / PLAN_NAME) != plan:
        raise ValueError(
            f"{output_dir} was started with other data or another tokenizer: choose another --output_dir."
        )


def _encode_shard(tokenizer, data: ShardDataset, path: Path, positions: np.ndarray, bar: tqdm) -> None:
    names, recorded = data.metadata.reward_names or (), {}
    if names:
        shard = int(data.episode_shards[positions[0]])
        recorded = dict(zip(positions.tolist(), data.recorded_rewards(shard), strict=True))
    layout = {"kind": LATENTS, "state_dim": data.state_dim, "num_tasks": len(names)}
    with write_shard(path, data.action_dim, **layout) as writer:
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
            bar.update(len(item["actions"]))


def _finish(data: ShardDataset, output_dir: Path, tokenizer: DreamerTokenizerModel, fingerprint: str) -> None:
    """Write index and metadata, which complete the folder."""
    remove_leftovers(output_dir)
    shards = range(data.metadata.num_shards)
    ShardIndex.join([read_shard_index(output_dir / shard_name(shard), shard) for shard in shards]).write(output_dir)
    latent_shape = (data.metadata.num_cameras * tokenizer.config.num_latent_tokens, tokenizer.config.latent_dim)
    replace(data.metadata, image_shape=None, latent_shape=latent_shape, tokenizer_fingerprint=fingerprint).write(
        output_dir
    )

"""Make a world of larger frames from a trained one, in minutes on a CPU.

    dreamer record --output_dir data/play --episodes 400
    python examples/enlarge_world.py --model pusht-tiny --data_dir data/play --output_dir outputs/pusht-96

The encoder and the dynamics model do not change (docs/decisions/0011). Only the refiner is trained, which
sharpens the enlarged frames of the decoder. The frames in the shards have the size of the new world.
"""

import math
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from dreamer_hf import DreamerWorldModel
from dreamer_hf.cli import run_with_options
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.files import new_output_folder
from dreamer_hf.enlarge import enlarged_tokenizer
from dreamer_hf.frame_inputs import to_unit_range
from dreamer_hf.image_metrics import VideoQuality
from dreamer_hf.loading import load_world
from dreamer_hf.modeling_dreamer_tokenizer import DreamerTokenizerModel
from dreamer_hf.options import option
from dreamer_hf.start_frames import save_start_frames, starts_from_dataset
from dreamer_hf.video_processing_dreamer import DreamerVideoProcessor

HELD_OUT_FRAMES = 256
WARM_UP_STEPS = 30


@dataclass(frozen=True, kw_only=True)
class EnlargeOptions:
    """The options of this script."""

    model: str = option(
        "pusht-tiny", help="World to enlarge: a folder, a Hub repository, or the name of a shipped one."
    )
    data_dir: str = option(help="Shard folder with square frames of the new size.")
    output_dir: str = option(help="New or empty folder for the world.")
    minutes: float = option(5.0, help="Minutes of training.")
    frames: int = option(4000, help="Number of frames to train on, spread over the episodes.")
    batch_size: int = option(16, help="Frames in a step.")
    learning_rate: float = option(4e-3, help="Peak learning rate of AdamW.")
    refiner_channels: int = option(16, help="Width of the refiner.")
    seed: int = option(0, help="Seed of new weights and of the order of the frames.")

    def __post_init__(self):
        for name in ("minutes", "frames", "batch_size", "learning_rate", "refiner_channels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"expected a number above 0 for --{name}, got {getattr(self, name)}.")


def enlarge_world(options: EnlargeOptions) -> str:
    """Enlarge a world as the options say and return what came of it."""
    world = load_world(options.model, "cpu")
    offset = world.config.dynamics_config.action_offset
    train, test = (
        ShardDataset(options.data_dir, None, split=split, action_offset=offset) for split in ("train", "validation")
    )
    if train.image_size is None or train.image_size[0] != train.image_size[1]:
        raise ValueError(f"{options.data_dir} has no square frames: convert or record some of the new size.")
    tokenizer = enlarged_tokenizer(world.tokenizer, train.image_size[0], options.refiner_channels, options.seed).eval()
    with new_output_folder(options.output_dir) as folder:
        held_out = sample_frames(test, HELD_OUT_FRAMES)
        before = reconstruction(tokenizer, held_out)
        train_refiner(tokenizer, sample_frames(train, options.frames), options)
        after = reconstruction(tokenizer, held_out)
        enlarged = DreamerWorldModel(tokenizer=tokenizer, dynamics=world.dynamics)
        enlarged.save_pretrained(folder)
        DreamerVideoProcessor.for_tokenizer(tokenizer.config).save_pretrained(folder)
        save_start_frames(folder, starts_from_dataset(test))
    return (
        f"Frames of {tokenizer.config.image_size} pixels are reconstructed at {after:.1f} dB (enlarged linearly: "
        f"{before:.1f} dB). To play the world: dreamer play --model {options.output_dir}"
    )


def sample_frames(data: ShardDataset, count: int) -> torch.Tensor:
    """Return at most `count` frames (F, 3, H, W) uint8, spread evenly over the episodes."""
    each = math.ceil(count / data.num_episodes)
    parts = []
    for position in range(data.num_episodes):
        video = data.episode(position)["pixel_values_videos"]
        parts.append(video[:: max(1, len(video) // each)][:each])
    return torch.cat(parts)[:count]


@torch.no_grad()
def reconstruction(tokenizer: DreamerTokenizerModel, frames: torch.Tensor) -> float:
    """Return the PSNR in dB of what the tokenizer makes of frames (F, 3, H, W) uint8."""
    quality = VideoQuality()
    for part in frames[:, None].split(32):
        drawn = tokenizer.decode(tokenizer.encode(part).latents).pixel_values_videos
        quality.add(drawn, to_unit_range(part))
    return quality.values()["psnr"]


@torch.no_grad()
def drawn_without_refiner(tokenizer: DreamerTokenizerModel, frames: torch.Tensor) -> torch.Tensor:
    """Return what the decoder makes of frames (F, 3, H, W) before the refiner, normalized, float16."""
    decoder = tokenizer.decoder
    refiner, decoder.refiner = decoder.refiner, None
    try:
        parts = tqdm(frames[:, None].split(32), "drawing", unit="batch")
        return torch.cat([decoder(tokenizer.encode(part).latents)[:, 0].half() for part in parts])
    finally:
        decoder.refiner = refiner


def train_refiner(tokenizer: DreamerTokenizerModel, frames: torch.Tensor, options: EnlargeOptions) -> None:
    """Train the refiner of a tokenizer on frames (F, 3, H, W) uint8."""
    drawn, refiner = drawn_without_refiner(tokenizer, frames), tokenizer.decoder.refiner
    optimizer = torch.optim.AdamW(refiner.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    generator, started, step = torch.Generator().manual_seed(options.seed), time.monotonic(), 0
    with tqdm(desc="training the refiner", unit="step") as progress:
        while (share := (time.monotonic() - started) / 60 / options.minutes) < 1:
            chosen = torch.randint(len(frames), (options.batch_size,), generator=generator)
            real = (to_unit_range(frames[chosen]) - tokenizer.image_mean) / tokenizer.image_std
            loss = (refiner(drawn[chosen].float()) - real).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(refiner.parameters(), 1.0)
            for group in optimizer.param_groups:
                decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
                group["lr"] = options.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * decay
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            progress.update()


if __name__ == "__main__":
    run_with_options(EnlargeOptions, enlarge_world, __doc__)

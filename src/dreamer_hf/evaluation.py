"""How good a dream is, step by step, against the floors that any world model must beat.

Shapes: E episodes, C context frames, F dreamt frames, H, W pixels, a action width.
"""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from .data.windows import EpisodeWindows
from .modeling_dreamer_world import DreamerWorldModel


@dataclass
class DreamComparison:
    """Held-out episodes, and what was dreamt of them under their own and under shuffled actions.

    Attributes:
        context: (E,C,3,H,W) float in [0, 1], the frames that the dreams start from.
        real: (E,F,3,H,W), what really followed.
        dreamt: (E,F,3,H,W), dreamt under the recorded actions.
        shuffled: (E,F,3,H,W), dreamt from the same noise under the same actions in a random order.
        reconstructed: (E,F,3,H,W), the real frames through the tokenizer: the ceiling of any dream.
        actions: (E,F,a), raw.
    """

    context: torch.Tensor
    real: torch.Tensor
    dreamt: torch.Tensor
    shuffled: torch.Tensor
    reconstructed: torch.Tensor
    actions: torch.Tensor

    def psnr_by_step(self) -> dict[str, torch.Tensor]:
        """Peak signal-to-noise ratio in dB for every step, (F,) each, from the mean squared error over episodes."""
        last = self.context[:, -1:].expand_as(self.real)
        candidates = {
            "dream": self.dreamt,
            "repeat the last frame": last,
            "actions shuffled": self.shuffled,
            "tokenizer alone": self.reconstructed,
        }
        return {name: psnr_by_step(frames, self.real) for name, frames in candidates.items()}


def psnr_by_step(frames: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(E,F,3,H,W) twice, in [0, 1] -> (F,) PSNR in dB of the mean squared error over episodes."""
    error = (frames - real).square().mean(dim=(0, 2, 3, 4))
    return -10 * torch.log10(error.clamp_min(1e-10))


@torch.no_grad()
def compare_dreams(
    world: DreamerWorldModel,
    data: EpisodeWindows,
    num_context_frames: int = 8,
    num_dreamt_frames: int = 32,
    num_episodes: int = 16,
    seed: int = 0,
) -> DreamComparison:
    """Dreams held-out episodes under their own and under shuffled actions.

    Args:
        world: the model.
        data: held-out episodes; the first `num_episodes` of enough length are taken, from their first frame.
        num_context_frames, num_dreamt_frames: C and F.
        seed: of the dreams' noise and of the shuffling.

    Raises:
        ValueError: the data do not fit the world, or no episode is long enough.
    """
    check_data_fits(world, data)
    items = _episode_starts(data, num_context_frames + num_dreamt_frames, num_episodes)
    frames, actions, mask = (torch.stack([item[key] for item in items]) for key in items[0])
    frames, past, future = frames.float() / 255, slice(0, num_context_frames), slice(num_context_frames, None)
    order = torch.randperm(num_dreamt_frames, generator=torch.Generator().manual_seed(seed))
    dreams = []
    for steering in tqdm((actions[:, future], actions[:, future][:, order]), desc="dreaming", unit="dream"):
        output = world.generate(
            frames[:, past],
            steering,
            actions[:, past],
            context_action_mask=mask[:, past],
            generator=torch.Generator().manual_seed(seed),
        )
        dreams.append(output.pixel_values_videos.cpu())
    latents = world.tokenizer.encode(frames.to(world.device)).latents
    reconstructed = world.tokenizer.decode(latents).pixel_values_videos.cpu()
    return DreamComparison(frames[:, past], frames[:, future], *dreams, reconstructed[:, future], actions[:, future])


def check_data_fits(world: DreamerWorldModel, data: EpisodeWindows) -> None:
    """Raises:
    ValueError: image size, action width, rate or alignment of data and world differ; the sentence names both.
    """
    tokenizer, dynamics = world.config.tokenizer_config, world.config.dynamics_config
    pairs = {
        "image size": (tokenizer.frame_size, tuple(data.image_size or ())),
        "action width": (dynamics.action_dim, data.action_dim),
        "action_offset": (dynamics.action_offset, data.action_offset),
    }
    if dynamics.fps is not None and data.fps is not None:
        pairs["frame rate"] = (float(dynamics.fps), float(data.fps))
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ValueError(f"the world has {name} {ours} but the data has {theirs}: convert the data to match.")


def _episode_starts(data: EpisodeWindows, num_frames: int, num_episodes: int) -> list[dict[str, torch.Tensor]]:
    """The first `num_frames` frames of the first episodes that are long enough."""
    long_enough = [i for i, length in enumerate(data.episode_lengths) if length >= num_frames]
    if not long_enough:
        raise ValueError(
            f"no held-out episode has {num_frames} frames, the longest has {max(data.episode_lengths)}: "
            "dream fewer frames or start from fewer."
        )
    return [data.window(position, 0, num_frames) for position in long_enough[:num_episodes]]


__all__ = ["DreamComparison", "check_data_fits", "compare_dreams", "psnr_by_step"]

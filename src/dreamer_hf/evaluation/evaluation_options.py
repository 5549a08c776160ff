"""The options of evaluating a world and of making videos of its dreams. Imports nothing that takes time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..options import option, ray_option


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """From how many frames to dream, and for how long."""

    num_context_frames: int = option(8, help="Context frames, which are not dreamed.")
    num_dream_frames: int = option(64, help="Frames to dream. Shorter episodes are left out.")

    def __post_init__(self):
        for name in ("num_context_frames", "num_dream_frames", "num_episodes", "batch_size"):
            if getattr(self, name, 1) < 1:
                raise ValueError(f"expected a positive int for --{name}, got {getattr(self, name)}.")

    def fit(self, lengths: Sequence[int]) -> "Horizon":
        """Return the same options with fewer dream frames if no episode is long enough for them.

        At least half of the episodes are then long enough, if they have more than the context frames.

        Args:
            lengths: lengths of the episodes in frames.
        """
        longest, middle = max(lengths, default=0), sorted(lengths)[len(lengths) // 2] if len(lengths) else 0
        if longest >= self.num_context_frames + self.num_dream_frames or longest <= self.num_context_frames:
            return self
        length = middle if middle > self.num_context_frames else longest
        return replace(self, num_dream_frames=int(length) - self.num_context_frames)


@dataclass(frozen=True, kw_only=True)
class Protocol(Horizon):
    """What a world is measured on."""

    num_episodes: int = option(64, help="Maximum number of episodes.")
    batch_size: int = option(64, help="Episodes to dream at a time. It changes the noise that an episode gets.")
    num_videos: int = option(3, help="Episodes to show in the video.")
    seed: int = option(0, help="Seed of the dreams' noise, and of the resampling for the intervals.")


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions:
    """Which world to load, and the data whose held-out episodes it dreams."""

    model: str = option(help="World: a folder, a Hub repository, or the name of a world that ships with the package.")
    adapter: str | None = option(None, help="Folder or Hub repository of an adapter for the world.")
    data_dir: str = option(help="Shard folder with the episodes to dream.")
    output_dir: str = option(help="New or empty folder for the results.")
    split: str = option("validation", choices=("validation", "train", "all"), help="Episodes to use.")
    dtype: str = option("auto", choices=("auto", "float32", "bfloat16"), help="Precision; auto: as saved.")
    device: str | None = option(None, help="Device to run on: cpu, cuda, ... Defaults to the GPU if there is one.")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Protocol, HeldOutOptions):
    """The options of `evaluate`."""

    lpips_net: str = option("alex", choices=("alex", "vgg", "none"), help="Trunk of LPIPS. Nothing is downloaded.")
    update_card: bool = option(
        False, help="Copy evaluation.json to the model's folder, and its table to the model card."
    )
    ray: str | None = ray_option()


@dataclass(frozen=True, kw_only=True)
class DreamVideoOptions(Horizon, HeldOutOptions):
    """The options of `save_dreams`."""

    num_dream_frames: int = option(32, help="Frames to dream. Shorter episodes are left out.")
    num_episodes: int = option(3, help="Maximum number of episodes.")
    seed: int = option(0, help="Seed of the dreams' noise.")


__all__ = ["DreamVideoOptions", "EvaluationOptions", "HeldOutOptions", "Horizon", "Protocol"]

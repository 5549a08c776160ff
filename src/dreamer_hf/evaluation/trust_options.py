"""The options of fitting a trust model. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import ENGINES, option
from .evaluation_options import Horizon

MEASURES = ("auto", "position", "image")


@dataclass(frozen=True, kw_only=True)
class TrustOptions(Horizon):
    """The options of `calibrate_trust`."""

    model: str = option(help="World: a folder, a Hub repository, or the name of a world that ships with the package.")
    data_dir: str = option(help="Shard folder with episodes that the world was not trained on.")
    split: str = option("validation", choices=("validation", "train", "all"), help="Episodes to use.")
    test_dir: str | None = option(
        None, help="Shard folder with other episodes, all of which test the model. Defaults to cross-validation only."
    )
    measure: str = option(
        "auto",
        choices=MEASURES,
        help="What the distance from reality is. position: of agent or block of PushT, in percent of the width; "
        "image: how many dB the PSNR of the dream is below the tokenizer's; auto: position for PushT.",
    )
    tolerance: float | None = option(
        None, help="Distance up to which a frame counts as real. Defaults to 5 (position) or 6 (image)."
    )
    num_episodes: int = option(64, help="Maximum number of episodes, of each folder.")
    batch_size: int = option(64, help="Episodes to dream at a time.")
    seed: int = option(0, help="Seed of the dreams' noise.")
    engine: str = option("auto", choices=ENGINES, help="What computes the dreams, as in dreamer play.")
    device: str | None = option(None, help="Device to run on: cpu, cuda, ... Defaults to the GPU if there is one.")
    num_inference_steps: int | None = option(
        None, help="Denoising steps per frame, a power of two. Defaults to what is saved with the world."
    )
    output: str | None = option(None, metavar="FILE.json", help="Where to write the model.")
    save: bool = option(False, help="Write the model into the folder of the world, as trust.json.")

    def __post_init__(self):
        super().__post_init__()
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise ValueError(f"expected a positive number for --tolerance, got {self.tolerance}.")


__all__ = ["TrustOptions"]

"""How close images are to each other: PSNR, SSIM and, if its weights are on the machine, LPIPS.

Shapes: B videos, T frames, H, W pixels. All images are on the [0, 1] scale.
"""

import logging
import math
from pathlib import Path

import torch
from torch import nn

LPIPS_WEIGHTS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""File names of the trunk's weights, as torchvision stores them."""

logger = logging.getLogger(__name__)


def psnr(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 120."""
    return -10 * math.log10(max(mean_squared_error, 1e-12))


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of each image (B, 3, H, W) to its target: (B,), 1 for equal images.

    It has a Gaussian window of 11 pixels with a standard deviation of 1.5, no padding, and the constants of Wang et
    al., "Image quality assessment: from error visibility to structural similarity" (2004); it is the mean over the
    channels.
    """
    offsets = torch.arange(11, device=images.device) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    channels = images.shape[1]
    window = torch.outer(line, line).div(line.sum() ** 2).expand(channels, 1, 11, 11)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(values, window, groups=channels)

    mean_x, mean_y = mean(images), mean(targets)
    variance_x = mean(images**2) - mean_x**2
    variance_y = mean(targets**2) - mean_y**2
    covariance = mean(images * targets) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def load_lpips(net: str, device: torch.device) -> nn.Module | None:
    """Load a frozen `lpips.LPIPS` if the package and the weights of its trunk are on this machine.

    Nothing is downloaded.

    Args:
        net: "vgg", "alex", or "none".
        device: device to run on.

    Returns:
        The module, or None; unless `net` is "none", a warning then says what is missing.
    """
    if net == "none":
        return None
    weights = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS[net]
    if not weights.is_file():
        logger.warning(
            "LPIPS is not computed: its weights are not on this machine; to use it, copy them to %s.", weights
        )
        return None
    try:
        import lpips  # It imports torchvision, which takes seconds that most runs do not need.
    except ImportError:
        logger.warning("LPIPS is not computed: it needs the package lpips (pip install lpips).")
        return None
    return lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval().to(device)


@torch.no_grad()
def frame_scores(
    videos: torch.Tensor, targets: torch.Tensor, perceptual: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """Compare each frame of videos (B, T, 3, H, W) with its target.

    Returns:
        `mse`, `ssim` and, if an `lpips.LPIPS` is given, `lpips`: (B, T) float64 on the CPU each.
    """
    batch = videos.shape[:2]
    images, references = videos.float().flatten(0, 1), targets.float().flatten(0, 1)
    scores = {"mse": (images - references).square().mean(dim=(1, 2, 3)), "ssim": ssim(images, references)}
    if perceptual is not None:
        scores["lpips"] = perceptual(images, references, normalize=True).flatten()
    return {name: values.unflatten(0, batch).double().cpu() for name, values in scores.items()}


class VideoQuality:
    """The scores of many videos, and their means at each frame position.

    Args:
        perceptual: an `lpips.LPIPS`, or None.
    """

    def __init__(self, perceptual: nn.Module | None = None):
        self.perceptual = perceptual
        self._added: list[dict[str, torch.Tensor]] = []

    def add(self, videos: torch.Tensor, targets: torch.Tensor) -> None:
        """Compare videos (B, T, 3, H, W) with their targets."""
        self._added.append(frame_scores(videos, targets, self.perceptual))

    def scores(self) -> dict[str, torch.Tensor]:
        """Return `mse`, `ssim` and perhaps `lpips` of each frame of all videos that were added: (videos, T) each."""
        return {name: torch.cat([scores[name] for scores in self._added]) for name in self._added[0]}

    def mse(self) -> float:
        """Return the mean squared error over all frames."""
        return self.scores()["mse"].mean().item()

    def values(self, frame: int | None = None) -> dict[str, float]:
        """Return `psnr` (of the mean squared error), `ssim` and perhaps `lpips`.

        Args:
            frame: frame position; None for the mean over all frames.
        """
        means = {
            name: (values if frame is None else values[:, frame]).mean().item()
            for name, values in self.scores().items()
        }
        return {"psnr": psnr(means.pop("mse"))} | means


__all__ = ["VideoQuality", "frame_scores", "load_lpips", "psnr", "ssim"]

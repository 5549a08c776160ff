"""How close images are to each other: PSNR, SSIM and, where its weights are at hand, LPIPS.

Shapes: B videos, T frames, H, W pixels; everything on the [0, 1] scale.
"""

import math

import torch
from torch import nn


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB."""
    return -10 * math.log10(max(mean_squared_error, 1e-12))


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image (B,3,H,W) -> (B,), 1 for equal ones.

    Gaussian window of 11 pixels and deviation 1.5, no padding, the constants of Wang et al., "Image quality
    assessment: from error visibility to structural similarity" (2004); the mean over the channels.
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


class VideoQuality:
    """Means over many videos, for each frame position by itself.

    Args:
        perceptual: an `lpips.LPIPS`, or None.
    """

    def __init__(self, perceptual: nn.Module | None = None):
        self.perceptual = perceptual
        self.videos = 0
        self.totals: dict[str, torch.Tensor] = {}

    def add(self, videos: torch.Tensor, targets: torch.Tensor) -> None:
        """Compares videos (B,T,3,H,W) with what they should be."""
        batch = videos.shape[:2]
        images, references = videos.float().flatten(0, 1), targets.float().flatten(0, 1)
        scores = {"mse": (images - references).square().mean(dim=(1, 2, 3)), "ssim": ssim(images, references)}
        if self.perceptual is not None:
            scores["lpips"] = self.perceptual(images, references, normalize=True).flatten()
        self.videos += batch[0]
        for name, values in scores.items():
            by_position = values.unflatten(0, batch).double().sum(dim=0).cpu()
            self.totals[name] = self.totals.get(name, 0) + by_position

    def mse(self, frame: int | None = None) -> float:
        """Mean squared error at one frame position, or over all of them."""
        return self._mean("mse", frame)

    def values(self, frame: int | None = None) -> dict[str, float]:
        """`psnr` (of the mean squared error), `ssim` and perhaps `lpips`, at one frame position or over all."""
        scores = {name: self._mean(name, frame) for name in self.totals}
        return {"psnr": psnr(scores.pop("mse"))} | scores

    def _mean(self, name: str, frame: int | None) -> float:
        total = self.totals[name].mean() if frame is None else self.totals[name][frame]
        return total.item() / self.videos

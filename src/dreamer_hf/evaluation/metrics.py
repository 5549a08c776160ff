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


@torch.no_grad()
def frame_scores(
    videos: torch.Tensor, targets: torch.Tensor, perceptual: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    """Compares every frame of videos (B,T,3,H,W) with what it should be.

    Returns `mse`, `ssim` and, with an `lpips.LPIPS` given, `lpips`: (B,T) float64 on the CPU each.
    """
    batch = videos.shape[:2]
    images, references = videos.float().flatten(0, 1), targets.float().flatten(0, 1)
    scores = {"mse": (images - references).square().mean(dim=(1, 2, 3)), "ssim": ssim(images, references)}
    if perceptual is not None:
        scores["lpips"] = perceptual(images, references, normalize=True).flatten()
    return {name: values.unflatten(0, batch).double().cpu() for name, values in scores.items()}


class VideoQuality:
    """The scores of many videos, and their means for each frame position by itself.

    Args:
        perceptual: an `lpips.LPIPS`, or None.
    """

    def __init__(self, perceptual: nn.Module | None = None):
        self.perceptual = perceptual
        self._added: list[dict[str, torch.Tensor]] = []

    def add(self, videos: torch.Tensor, targets: torch.Tensor) -> None:
        """Compares videos (B,T,3,H,W) with what they should be."""
        self._added.append(frame_scores(videos, targets, self.perceptual))

    def scores(self) -> dict[str, torch.Tensor]:
        """`mse`, `ssim` and perhaps `lpips` of every frame of every video that was added: (videos,T) each."""
        return {name: torch.cat([scores[name] for scores in self._added]) for name in self._added[0]}

    def mse(self) -> float:
        """Mean squared error over all frames."""
        return self.scores()["mse"].mean().item()

    def values(self, frame: int | None = None) -> dict[str, float]:
        """`psnr` (of the mean squared error), `ssim` and perhaps `lpips`, at one frame position or over all."""
        means = {
            name: (values if frame is None else values[:, frame]).mean().item()
            for name, values in self.scores().items()
        }
        return {"psnr": psnr(means.pop("mse"))} | means

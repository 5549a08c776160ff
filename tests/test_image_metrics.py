import cv2
import numpy as np
import pytest
import torch

from dreamer_hf.image_metrics import VideoQuality, psnr, ssim


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. (2004), one channel, written out with OpenCV's filter, borders cut off."""

    def blur(values):
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (top / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean()


def test_ssim_equals_the_reference():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 20, 24)
    targets = (images + 0.2 * torch.randn_like(images)).clamp(0, 1)
    expected = [
        np.mean([reference_ssim(x.double().numpy(), y.double().numpy()) for x, y in zip(image, target)])
        for image, target in zip(images, targets)
    ]
    assert ssim(images, targets).tolist() == pytest.approx(expected, abs=1e-4)
    assert ssim(images, images).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_quality_is_averaged_for_each_frame_position():
    targets = torch.zeros(3, 2, 3, 16, 16)
    videos = targets.clone()
    videos[:, 1] = 0.1
    quality = VideoQuality()
    quality.add(videos[:1], targets[:1])
    quality.add(videos[1:], targets[1:])
    assert quality.values(1)["psnr"] == pytest.approx(20)
    assert quality.mse() == pytest.approx(0.005)
    assert quality.values()["psnr"] == pytest.approx(psnr(0.005))
    assert quality.values(0)["ssim"] == pytest.approx(1)

"""LPIPS, the perceptual loss and measure, where its weights are at hand."""

import logging
from pathlib import Path

import torch
from torch import nn

logger = logging.getLogger(__name__)

TRUNK_FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


def load_perceptual(net: str, device: torch.device) -> nn.Module | None:
    """Loads a frozen `lpips.LPIPS` if the package and the trunk's weights are on this machine; never downloads.

    Args:
        net: "vgg", "alex", or "none".
        device: where it will run.

    Returns:
        The module, or None, having said why in one line.
    """
    if net == "none":
        return None
    weights = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILES[net]
    if not weights.is_file():
        logger.warning(
            "no LPIPS in losses and measures: its weights are not on this machine; copy them to %s to have it.",
            weights,
        )
        return None
    try:
        import lpips  # here, because it imports torchvision: seconds that few runs need
    except ImportError:
        logger.warning("no LPIPS in losses and measures: it needs the package lpips (pip install lpips).")
        return None
    return lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval().to(device)

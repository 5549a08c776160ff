"""The perceptual loss, where its weights are at hand."""

import logging
from pathlib import Path

import torch
from torch import nn

logger = logging.getLogger(__name__)

TRUNK_FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


def load_perceptual(net: str) -> nn.Module | None:
    """Loads a frozen `lpips.LPIPS` if the package and the trunk's weights are on this machine; never downloads.

    Args:
        net: "vgg", "alex", or "none".

    Returns:
        The module, or None, having said why in one line.
    """
    if net == "none":
        return None
    weights = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILES[net]
    if not weights.is_file():
        logger.warning(
            "training on MSE alone: the perceptual loss needs the weights %s; copy them there to use it.", weights
        )
        return None
    try:
        import lpips  # here, because it imports torchvision: seconds that few runs need
    except ImportError:
        logger.warning("training on MSE alone: the perceptual loss needs the package lpips (pip install lpips).")
        return None
    return lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()

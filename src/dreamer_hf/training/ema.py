"""Exponential moving average of the weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Keeps an average of the model's weights; call `update_parameters(model)` after every step.

    The decay starts low and rises to `decay` as `(1 + n) / (10 + n)`: the random initial weights do not linger.
    """

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor | int) -> None:
        count = int(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, num_averaged)

    return AveragedModel(model, multi_avg_fn=update)

"""Muon, fast where matrices are small and many: `torch.optim.Muon` for all matrices of one shape at a time."""

import math
from collections.abc import Iterator

import torch

BATCH_ELEMENTS = 2**24
"""Numbers that are made orthogonal together, at most (64 MB in float32): large models must not hold all their updates."""


class BatchedMuon(torch.optim.Muon):
    """Takes the steps of `torch.optim.Muon`, with the same arguments and the same state (either loads the other's).

    Newton-Schulz iterations run over a stack of matrices instead of one after another. On a GPU they are computed in
    bfloat16, as PyTorch does everywhere; elsewhere in float32, which is more exact and, on processors without matrix
    units for bfloat16, twice as fast.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """See `torch.optim.Optimizer`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameters in _batches([p for p in group["params"] if p.grad is not None]):
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[torch.nn.Parameter], group: dict) -> None:
        gradients = [p.grad for p in parameters]
        momenta = [self._momentum(p) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
        updates = orthogonalized(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * _rate_ratio(group["adjust_lr_fn"], *parameters[0].shape)
        torch._foreach_add_(parameters, list(updates.to(parameters[0].dtype)), alpha=-rate)

    def _momentum(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        return state["momentum_buffer"]


def _batches(parameters: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters of one shape and device together, in their order, at most `BATCH_ELEMENTS` numbers a batch."""
    alike = {}
    for parameter in parameters:
        alike.setdefault((parameter.shape, parameter.device), []).append(parameter)
    for (shape, _), members in alike.items():
        size = max(1, BATCH_ELEMENTS // shape.numel())
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _rate_ratio(rule: str | None, rows: int, columns: int) -> float:
    """What the learning rate is multiplied by for a matrix of this shape, as `torch.optim.Muon` documents it."""
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def orthogonalized(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Matrices (K,rows,columns) -> the same with all singular values drawn close to 1, in the dtype of the iterations.

    Every step maps each singular value s (of the matrix over its norm) to `a s + b s^3 + c s^5`, and leaves the
    singular vectors as they are.
    """
    a, b, c = coefficients
    dtype = torch.bfloat16 if matrices.device.type == "cuda" else torch.float32
    is_tall = matrices.shape[1] > matrices.shape[2]
    result = (matrices.mT if is_tall else matrices).to(dtype)
    result = result / torch.linalg.matrix_norm(result, keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.mT if is_tall else result

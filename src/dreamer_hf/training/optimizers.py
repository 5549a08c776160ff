"""What an optimizer step is made of: AdamW and Muon, the learning rate, averaged weights, and compiled layers."""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..modeling_layers import DreamerLayer
from .arguments import TrainerArguments


def build_optimizers(model: nn.Module, arguments: TrainerArguments) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or AdamW and Muon: Muon for the hidden matrices, AdamW for the rest.

    Hidden matrices are the two-dimensional weights of the transformer layers. Embeddings, norms, input and output
    projections stay with AdamW; what is not a matrix has no weight decay.
    """
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    use_muon = arguments.optimizer == "muon"
    hidden = [p for name, p in parameters if use_muon and is_hidden_matrix(name, p)]
    rest = [(name, p) for name, p in parameters if not (use_muon and is_hidden_matrix(name, p))]
    optimizers = [_adamw(rest, arguments)]
    if hidden:
        # match_rms_adamw: an update of the size that AdamW's would have, so that one learning rate suits both.
        muon = BatchedMuon(
            hidden,
            lr=arguments.muon_learning_rate,
            weight_decay=arguments.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between hidden activations: a linear weight inside a transformer layer.

    The factors of a low-rank adapter are none: making each orthogonal says nothing about their product.
    """
    return parameter.ndim == 2 and ".layers." in name and "lora_" not in name


def is_latent_projection(name: str) -> bool:
    """Whether a parameter leads into the latents or out of them.

    Steps of full size drive small tokenizers' latents into the flat ends of the tanh, where no gradient leads back
    (docs/decisions/0001).
    """
    return any(part in name for part in ("latent_proj", "latent_embed", "latent_tokens"))


def _adamw(parameters: list[tuple[str, nn.Parameter]], arguments: TrainerArguments) -> torch.optim.AdamW:
    groups = []
    for into_latents, ratio in ((False, 1.0), (True, arguments.latent_learning_rate_ratio)):
        chosen = [p for name, p in parameters if is_latent_projection(name) == into_latents]
        groups.append({"params": [p for p in chosen if p.ndim >= 2], "lr_ratio": ratio})
        groups.append({"params": [p for p in chosen if p.ndim < 2], "lr_ratio": ratio, "weight_decay": 0.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        weight_decay=arguments.weight_decay,
        fused=True,
    )


def learning_rate_factor(step: int, progress: float, warmup_steps: int, final_ratio: float) -> float:
    """Part of the peak learning rate: linear warm-up times half a cosine from 1 down to `final_ratio`.

    Args:
        step: optimizer steps finished.
        progress: part of the whole run that is over, in [0, 1], by steps or by time.
        warmup_steps: steps until the peak.
        final_ratio: the factor at the end of the run.
    """
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warmup * (final_ratio + (1 - final_ratio) * cosine)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], arguments: TrainerArguments, factor: float) -> None:
    """Sets the peak learning rates of `build_optimizers`, times the factor."""
    for optimizer, peak in zip(optimizers, (arguments.learning_rate, arguments.muon_learning_rate)):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor * group.get("lr_ratio", 1.0)


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


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Keeps an average of the model's weights; call `update_parameters(model)` after every step.

    The decay starts low and rises to `decay` as `(1 + n) / (10 + n)`: the random initial weights do not linger.
    """

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor | int) -> None:
        count = int(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, num_averaged)

    return AveragedModel(model, multi_avg_fn=update)


NUM_GRAPHS = 64
"""Compiled graphs that all layers may have together: of every width and kind of attention, with and without gradient, for
every shape of batch. PyTorch stops at 8."""


def compile_layers(model: nn.Module) -> None:
    """Compiles every layer in place, at its first call: `--torch_compile`.

    Layers of a kind share their code, so that 32 compile as fast as 3. Raises PyTorch's limit of graphs for the process.
    Which shape of batch comes first decides which gets code for itself alone, so that a resumed run goes on to rounding.

    Args:
        model: holds `DreamerLayer`s, wrapped by adapters or not.
    """
    import torch._dynamo.config as dynamo_config  # PyTorch's compiler takes seconds to import

    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, NUM_GRAPHS)
    for module in model.modules():
        if isinstance(module, DreamerLayer):
            module.compile()

"""The parts of an optimizer step: AdamW and Muon, the learning rate, averaged weights, and compiled layers."""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..modeling_layers import DreamerLayer
from .arguments import OptimizerArguments

ADAM_BETAS = (0.9, 0.99)
AGENT_READERS = ("eye", "policy_head", "prior_head", "reward_head", "value_head", "continue_head")
"""What reads a frame for a `DreamerAgentModel`: its eye and its heads."""


def build_optimizers(model: nn.Module, arguments: OptimizerArguments) -> list[torch.optim.Optimizer]:
    """Return AdamW for all weights that are trained, or AdamW and Muon, where Muon has the hidden matrices.

    Hidden matrices are the two-dimensional weights of the transformer layers. Embeddings, norms, input and output
    projections stay with AdamW. Parameters that are not matrices have no weight decay.
    """
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    use_muon = arguments.optimizer == "muon"
    hidden = [p for name, p in parameters if use_muon and is_hidden_matrix(name, p)]
    rest = [(name, p) for name, p in parameters if not (use_muon and is_hidden_matrix(name, p))]
    optimizers = [_adamw(rest, arguments)]
    if hidden:
        # match_rms_adamw gives updates the size of AdamW's, so that learning rates are on the same scale.
        muon = BatchedMuon(
            hidden,
            lr=arguments.muon_learning_rate,
            weight_decay=arguments.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a matrix between hidden activations: a linear weight inside a transformer layer.

    The factors of a low-rank adapter do not count: making each orthogonal says nothing about their product.
    """
    return parameter.ndim == 2 and ".layers." in name and "lora_" not in name


def is_latent_projection(name: str) -> bool:
    """Return whether a parameter belongs to the projections into or out of the latents.

    Steps of full size drive the latents of small tokenizers into the flat ends of the tanh, where gradients vanish
    (docs/decisions/0001).
    """
    return any(part in name for part in ("latent_proj", "latent_embed", "latent_tokens"))


def _adamw(parameters: list[tuple[str, nn.Parameter]], arguments: OptimizerArguments) -> torch.optim.AdamW:
    ratios = {"other": 1.0, "latents": arguments.latent_learning_rate_ratio}
    ratios["heads"] = arguments.head_learning_rate_ratio
    ratios["tokens"] = arguments.token_learning_rate_ratio
    groups = []
    for part, ratio in ratios.items():
        chosen = [p for name, p in parameters if _part_of(name) == part]
        groups.append({"params": [p for p in chosen if p.ndim >= 2], "lr_ratio": ratio})
        groups.append({"params": [p for p in chosen if p.ndim < 2], "lr_ratio": ratio, "weight_decay": 0.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=arguments.learning_rate,
        betas=ADAM_BETAS,
        weight_decay=arguments.weight_decay,
        fused=True,
    )


def _part_of(name: str) -> str:
    """Return which of the learning rates a parameter has."""
    module = name.removeprefix("agent.").split(".")[0]
    if module in AGENT_READERS:
        return "heads"
    return "tokens" if module == "agent_tokens" else "latents" if is_latent_projection(name) else "other"


def learning_rate_factor(step: int, progress: float, warmup_steps: int, final_ratio: float) -> float:
    """Return the factor on the peak learning rate: linear warm-up times half a cosine from 1 down to `final_ratio`.

    Args:
        step: number of finished optimizer steps.
        progress: finished part of the whole run, in [0, 1], by steps or by time.
        warmup_steps: number of steps until the peak.
        final_ratio: the factor at the end of the run.
    """
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warmup * (final_ratio + (1 - final_ratio) * cosine)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], arguments: OptimizerArguments, factor: float) -> None:
    """Set the learning rates of `build_optimizers` to their peaks times a factor."""
    for optimizer, peak in zip(optimizers, (arguments.learning_rate, arguments.muon_learning_rate)):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor * group.get("lr_ratio", 1.0)


BATCH_ELEMENTS = 2**24
"""Largest number of matrix elements to orthogonalize together (64 MB in float32), to bound the memory of updates."""


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon` for all matrices of one shape at a time, with the same arguments and interchangeable state.

    Small matrices are faster in a stack than one after another. The Newton-Schulz iterations run in bfloat16 on a GPU,
    as in PyTorch, and in float32 elsewhere, which is more exact and, on processors without bfloat16 matrix units,
    twice as fast.
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
    """Group parameters by shape and device, in their order, with at most `BATCH_ELEMENTS` elements per group."""
    alike = {}
    for parameter in parameters:
        alike.setdefault((parameter.shape, parameter.device), []).append(parameter)
    for (shape, _), members in alike.items():
        size = max(1, BATCH_ELEMENTS // shape.numel())
        yield from (members[start : start + size] for start in range(0, len(members), size))


def _rate_ratio(rule: str | None, rows: int, columns: int) -> float:
    """Return the factor on the learning rate for a matrix of this shape, as documented for `torch.optim.Muon`."""
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def orthogonalized(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Return matrices (K,rows,columns) with all singular values moved close to 1, in the dtype of the iterations.

    Every step maps each singular value s (of the matrix divided by its norm) to `a s + b s^3 + c s^5` and keeps the
    singular vectors.
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
    """Return an exponential moving average of the model's weights; call `update_parameters(model)` after every step.

    The decay of step n is `(1 + n) / (10 + n)`, up to `decay`, so that the random initial weights are soon forgotten.
    """

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor | int) -> None:
        count = int(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, num_averaged)

    return AveragedModel(model, multi_avg_fn=update)


NUM_GRAPHS = 64
"""Number of compiled graphs that all layers may have: for every width and kind of attention, with and without
gradient, and for every shape of batch. PyTorch's own limit is 8."""


def compile_layers(model: nn.Module) -> None:
    """Compile every layer in place, when it is first called.

    Layers of the same kind share their code, so that 32 compile as fast as 3. The first shape of batch gets
    specialized code and later ones share dynamic code, so that a resumed run is equal only up to rounding.

    Args:
        model: holds `DreamerLayer`s, which adapters may have wrapped.
    """
    import torch._dynamo.config as dynamo_config  # PyTorch's compiler takes seconds to import

    dynamo_config.recompile_limit = max(dynamo_config.recompile_limit, NUM_GRAPHS)
    for module in model.modules():
        if isinstance(module, DreamerLayer):
            module.compile()

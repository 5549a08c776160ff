"""Optimizers and the learning rate."""

import math

import torch
from torch import nn

from .arguments import TrainerArguments
from .muon import BatchedMuon


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

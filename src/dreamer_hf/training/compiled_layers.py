"""Compiling a model for training, layer by layer."""

from torch import nn

from ..modeling_layers import DreamerLayer

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


__all__ = ["compile_layers"]

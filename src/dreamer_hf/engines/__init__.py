"""What computes the dreams of a world: PyTorch, or ONNX Runtime without it. Each is imported when it is used."""

from .world_engine import WorldEngine


def engine_for(world) -> WorldEngine:
    """Return the engine of a loaded world, a `DreamerWorldModel` or an `OnnxWorld`."""
    if hasattr(world, "manifest"):  # asked without importing either
        from .onnx_engine import OnnxEngine

        return OnnxEngine(world)
    from .torch_engine import TorchEngine

    return TorchEngine(world)


__all__ = ["WorldEngine", "engine_for"]

"""Worlds as ONNX graphs: exporting them, and dreaming on NumPy and ONNX Runtime without PyTorch.

`import dreamer_hf.onnx` loads the engine only: neither torch nor transformers. `export_world` has the other half.
"""

from .manifest import Manifest
from .onnx_rollout import OnnxRollout, OnnxRolloutOutput
from .onnx_starts import OnnxStarts
from .onnx_world import OnnxWorld

__all__ = ["Manifest", "OnnxRollout", "OnnxRolloutOutput", "OnnxStarts", "OnnxWorld"]

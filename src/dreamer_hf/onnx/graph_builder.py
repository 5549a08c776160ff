"""Writes ONNX graphs node by node.

Graphs are written and not traced: that takes a second instead of half a minute, and the choice of operations, which
decides the speed, is ours. An export is compared with the PyTorch model, so the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 9
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


class GraphBuilder:
    """A graph in the making. Values are known by their names, which every method takes and returns."""

    def __init__(self):
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Add an input; sizes that vary have a name."""
        self._inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> str:
        """Make the output of the last node a float32 output of the graph, and return its new name."""
        last = self._nodes[-1]
        if list(last.output) != [value]:
            raise ValueError(f"{value} is not the output of the last node.")
        last.output[0] = name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, values, name: str = "constant") -> str:
        """Add a tensor of weights, float32 unless it holds integers; equal constants are stored once."""
        values = np.asarray(values)
        values = values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float32)
        if name == "constant":
            digest = sha256(values.tobytes()).hexdigest()[:16]
            name = f"constant_{values.dtype}_{'x'.join(map(str, values.shape))}_{digest}"
            if name in self._weights:
                return name
        elif name in self._weights:
            raise ValueError(f"the graph has two weights {name!r}.")
        self._weights[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        """Add a node with one output."""
        (output,) = self.split_op(kind, 1, *inputs, **attributes)
        return output

    def split_op(self, kind: str, num_outputs: int, *inputs: str, **attributes) -> list[str]:
        """Add a node with several outputs."""
        name = f"{kind}_{len(self._nodes)}"
        outputs = [f"{name}_{index}" for index in range(num_outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def matmul(self, states: str, weight, name: str, bias=None) -> str:
        """Multiply states (..., I) by a weight (I,O), and add a bias (O,)."""
        product = self.op("MatMul", states, self.weight(weight, name))
        return product if bias is None else self.op("Add", product, self.weight(bias, f"{name}_bias"))

    def reshape(self, states: str, shape: Sequence[int]) -> str:
        """Reshape; 0 keeps the size at this place and -1 is what remains."""
        return self.op("Reshape", states, self.weight(np.array(shape, np.int64)))

    def transpose(self, states: str, *order: int) -> str:
        """Put the axes in another order."""
        return self.op("Transpose", states, perm=list(order))

    def split(self, states: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Split along an axis into parts of these sizes."""
        return self.split_op("Split", len(sizes), states, self.weight(np.array(sizes, np.int64)), axis=axis)

    def slice(self, states: str, start: int, end: int, axis: int) -> str:
        """Take the indices from `start` to before `end` of an axis."""
        bounds = (self.weight(np.array([value], np.int64)) for value in (start, end, axis))
        return self.op("Slice", states, *bounds)

    def unsqueeze(self, states: str, *axes: int) -> str:
        """Insert axes of size one."""
        return self.op("Unsqueeze", states, self.weight(np.array(axes, np.int64)))

    def expand_rows(self, tokens, like: str, name: str) -> str:
        """Repeat learned tokens (N,D) for every frame of every row: (B,T,N,D), with B and T those of another value."""
        size = self.op("Shape", like, start=0, end=2)
        shape = self.op("Concat", size, self.weight(np.array(tokens.shape, np.int64)), axis=0)
        return self.op("Expand", self.weight(tokens, name), shape)

    def model(self) -> onnx.ModelProto:
        """Return the model."""
        graph = helper.make_graph(self._nodes, "dreamer", self._inputs, self._outputs, list(self._weights.values()))
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dreamer_hf"
        )


__all__ = ["GraphBuilder"]

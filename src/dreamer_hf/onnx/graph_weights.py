"""How the weights of a graph are stored: float32, float16 (half the size, same arithmetic), or int8."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MIN_REDUCED_SIZE = 256
"""Fewest elements of a weight that is stored as float16 or int8."""

MAX_FILE_BYTES = 2_000_000_000
"""Largest graph in one file (the ONNX format allows 2 GiB); the weights of a larger one go into a file next to it."""

NORMALIZED_READERS = ("_query", "_key", "_query_key", "_value", "_value_output", "_gate", "_up")
"""Ends of the names of weights whose products read normalized tokens."""

HALF_MAX = float(np.finfo(np.float16).max)


def write_graph(model: onnx.ModelProto, path: Path, dtype: str, max_bytes: int = MAX_FILE_BYTES) -> list[Path]:
    """Write a graph.

    Args:
        model: the graph, which may be changed.
        path: file to write.
        dtype: one of `export_options.DTYPES`.
        max_bytes: size of weights from which they go into PATH.data. Default: 2 GB, what the format allows.

    Returns:
        The files with weights next to it.
    """
    if dtype == "float16":
        store_half(model.graph)
    if dtype == "int8":
        model = _quantized(model)
    data = path.with_name(f"{path.name}.data")
    if weight_bytes(model.graph) < max_bytes:
        onnx.save(model, path)
        return []
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    return [data]


def store_half(graph: onnx.GraphProto) -> None:
    """Store the large float32 weights of a graph as float16, which a runtime converts back when it loads them."""
    casts = []
    for tensor in graph.initializer:
        # Vectors, such as norms and biases, are small and add their error to everything: they keep their precision.
        is_matrix = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
        if not is_matrix or int(np.prod(tensor.dims)) < MIN_REDUCED_SIZE:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > HALF_MAX:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_to_float32", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)


def weight_bytes(graph: onnx.GraphProto) -> int:
    """Return the size of a graph's weights in bytes."""
    return sum(len(tensor.raw_data) for tensor in graph.initializer)


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with 8-bit weights.

    One scale has to fit all activations of a product of integers. Nothing is lost by that where tokens are normalized,
    which is two thirds of the work. Elsewhere, a few large activations would leave few bits for the others, so these
    products stay in float32, and a runtime converts their weights when it loads them.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Our graphs need no pre-processing; without this mark the quantizer advises it.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    readers = [node for node in model.graph.node if node.op_type == "MatMul"]
    readers = [node.name for node in readers if node.input[1].endswith(NORMALIZED_READERS)]
    is_large = weight_bytes(model.graph) >= MAX_FILE_BYTES
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source, save_as_external_data=is_large, size_threshold=1024)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=readers,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits: sums of products of 8 bits overflow on processors without VNNI
            use_external_data_format=is_large,
        )
        model = onnx.load(target)
    _store_bytes(model.graph)
    return model


def _store_bytes(graph: onnx.GraphProto) -> None:
    """Store the weights of float32 products as 8-bit integers with a scale for each column."""
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    conversions = []
    for name in dict.fromkeys(node.input[1] for node in products):
        tensor = weights[name]
        values = numpy_helper.to_array(tensor)
        if values.ndim != 2 or values.size < MIN_REDUCED_SIZE:
            continue
        scales = np.maximum(np.abs(values).max(axis=0), np.finfo(np.float32).tiny) / 127
        tensor.CopyFrom(numpy_helper.from_array(np.round(values / scales).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{name}_scales"))
        cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_unscaled"], to=TensorProto.FLOAT)
        scale = helper.make_node("Mul", [f"{name}_unscaled", f"{name}_scales"], [name])
        conversions += [cast, scale]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(conversions + nodes)


__all__ = ["store_half", "write_graph"]

"""An ONNX file in 8-bit integers: weights per channel, activations by what calibration clips make of them."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiostride.models.export.graph import tidy_graph

BATCH_SIZE = 16
LINEAR = ["Conv", "Gemm", "MatMul"]  # fewer roundings, and smaller, than with what only moves or scales numbers


def quantise(content: bytes, inputs: NDArray[np.float32]) -> bytes:
    """The same network with int8 weights and uint8 activations, by the static quantisation of onnxruntime.

    Convolutions, poolings and heads are quantised, weights with a scale for each output channel, activations between
    the least and the largest value that the calibration clips make. What lies in front of the logarithm of the
    frontend stays float32: powers reach over nine decades. The file takes and gives float32.

    Args:
        content: An ONNX file of `audiostride.models.export.files`.
        inputs: What it gets for the calibration clips, ``(clips, …)``.

    Returns:
        The file, with the metadata of the first; Quantize and Dequantize nodes stand around each operator.
    """
    onnx: Any = import_module("onnx")  # without types, and not installed everywhere
    quantization: Any = import_module("onnxruntime.quantization")
    shape_inference: Any = import_module("onnxruntime.quantization.shape_inference")
    given = onnx.load_model_from_string(content)
    with tempfile.TemporaryDirectory() as folder:
        before, folded, after = (str(Path(folder) / f"{name}.onnx") for name in ("before", "folded", "after"))
        onnx.save_model(given, before)
        # Computes once what hangs on weights alone, such as their transposes: only constants become int8.
        shape_inference.quant_pre_process(before, folded, skip_symbolic_shape=True)
        proto = onnx.load_model(folded)
        tidy_graph(proto)
        quantization.quantize_static(
            proto,
            after,
            _reader(quantization.CalibrationDataReader, given.graph.input[0].name, inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=LINEAR,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            nodes_to_exclude=_frontend_nodes(proto.graph),
        )
        made = onnx.load_model(after)
    # As the first: onnxruntime names sets of operators of its own that no node uses, which other programs refuse.
    made.ir_version = given.ir_version
    for entries in ("metadata_props", "opset_import"):
        made.ClearField(entries)
        getattr(made, entries).extend(getattr(given, entries))
    result: bytes = made.SerializeToString()
    return result


def _frontend_nodes(graph: Any) -> list[str]:
    """The nodes that lead to the logarithm of the frontend, and it; none where spectrograms are the input."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting, found = [node for node in graph.node if node.op_type == "Log"], dict[str, None]()
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = None
            waiting += [makers[name] for name in node.input if name in makers]
    return list(found)


def _reader(base: type, name: str, inputs: NDArray[np.float32]) -> Any:
    """The calibration clips as onnxruntime wants them."""

    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.split(inputs, range(BATCH_SIZE, len(inputs), BATCH_SIZE)))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    return Reader()

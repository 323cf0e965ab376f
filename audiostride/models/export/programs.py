"""A network as a program of ONNX or torch.export, and what such a file says of itself."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from audiostride import __version__
from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.export.graph import ExportedClassifier, ExportInput, output_name, tidy_graph

# The oldest operators that the exporter of torch knows, for the widest choice of runtimes (tried: onnxruntime 1.15.1).
OPSET = 18
IR_VERSION = 8  # of the file, which came with these operators; the exporter's 10 is refused by runtimes before 1.18
MAX_BATCH = 4096
METADATA_FILE = "audiostride.json"  # inside a torch.export archive


def export_metadata(model: AudioClassifier, *, input: ExportInput) -> dict[str, str]:
    """What a program must know to use the file: all values are texts, those that are no single word or number JSON.

    Args:
        model: The classifier.
        input: ``"waveform"`` or ``"log-mel"``.
    """
    config = model.config
    frontend = {**config.frontend_settings(), "power_floor": model.frontend.power_floor, "frames": config.window_frames}
    return {
        "audiostride_version": __version__,
        "input": input,
        "sample_rate": str(config.sample_rate),
        "window_samples": str(config.window_samples),
        "window_s": repr(config.window_s),
        "tasks": json.dumps(config.tasks, ensure_ascii=False),
        "multi_label": json.dumps(config.multi_label, ensure_ascii=False),
        "outputs": json.dumps({task: output_name(task) for task in config.tasks}, ensure_ascii=False),
        "frontend": json.dumps(frontend),
    }


def to_onnx(network: ExportedClassifier, example: Tensor, name: str, metadata: dict[str, str]) -> bytes:
    """A network as an ONNX file, for batches of any size of inputs like the example.

    Args:
        network: The network.
        example: A batch of two inputs: one would be taken for a constant.
        name: Of the input.
        metadata: What the file says of itself, see `export_metadata`.
    """
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[name],
        output_names=[output_name(task) for task in network.model.config.tasks],
        dynamic_shapes={"inputs": {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}},
        verbose=False,
    )
    if program is None:  # what dynamo rules out, for the type checker
        raise InputError("export: torch.onnx gave no program; update torch")
    proto: Any = program.model_proto
    tidy_graph(proto)
    proto.ir_version = IR_VERSION
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content: bytes = proto.SerializeToString()
    return content


def to_torch_export(network: ExportedClassifier, example: Tensor, metadata: dict[str, str]) -> bytes:
    """A network as an archive of torch.export, as `to_onnx`; the metadata stands in a file inside."""
    shapes = {"inputs": {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}}
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # the paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata, indent=2, ensure_ascii=False)})
    return buffer.getvalue()


@contextmanager
def without_noise() -> Iterator[None]:
    """Keep the exporter from telling of packages that it does not need and of its own deprecated calls."""
    loggers = [logging.getLogger("torch.onnx"), logging.getLogger()]  # the second is onnxruntime's, when it quantises
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

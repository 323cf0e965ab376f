"""Converted and frozen networks in ONNX."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from audiostride import freeze_downsampling


@pytest.mark.slow
def test_onnx_computes_what_the_converted_network_does(
    conversion: tuple[nn.Module, Tensor, nn.Module, pd.DataFrame], logits_of: Callable[[object], Tensor], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    _, x, converted, _ = conversion
    # Norms of an untrained network let maps vanish or explode in evaluation; a step of training moves them.
    with torch.no_grad():
        for _ in range(3):
            converted.train()(x)
    converted.eval()
    file = tmp_path / "model.onnx"
    torch.onnx.export(freeze_downsampling(converted, x), (x,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = logits_of(converted(x))
    joined = torch.cat([torch.from_numpy(each).flatten(1) for each in found], dim=1)
    # Sums in another order, through 20 to 120 layers of float32.
    torch.testing.assert_close(joined, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))

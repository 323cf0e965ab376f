"""How far the published layer is from this one, and that its known faults are all there is between them.

The published TensorFlow layer was run on noise once; its results are read here, where they are present. The model below
is of this package's equations, into which the faults are put one by one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from audiostride.strides.pooling import diffstride_pool

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "diffstride"
MAPS = ("32x32", "33x50", "64x100")
FAULTS = ("rows", "wide columns", "last column", "scale")
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="results of the published layer are not here")


def ramp(cutoff: np.float32, ramp_bins: float, positions: np.ndarray) -> np.ndarray:
    """Eq. 3 to 5, in float32 and the order of operations that decides which bins are kept in the published layer."""
    r = np.float32(ramp_bins)
    return np.clip(np.float32(1) / r * (r + cutoff - positions.astype(np.float32)), 0, 1)


def row_operator(n: int, stride: np.float32, ramp_bins: float, faults: tuple[str, ...]) -> np.ndarray:
    """From the spectrum of n rows to the pooled rows, for an inverse DFT scaled by the rows that are left."""
    cutoff = np.float32(n) / stride / np.float32(2)
    k = np.fft.fftfreq(n, 1 / n).round().astype(int)  # 0, 1, ..., -2, -1
    if "rows" in faults:
        # Off by one between +k and -k: negative frequencies stand one bin too near, and the positive ones of odd axes
        # one too far, but for the highest. What is kept is numbered anew from 0.
        weights = ramp(cutoff, ramp_bins, np.where(k < 0, -k - 1, k if n % 2 == 0 else np.minimum(k + 1, n // 2)))
        kept = weights > 0
        n_out, targets = int(kept.sum()), np.cumsum(kept) - 1
    else:
        weights = ramp(cutoff, ramp_bins, np.abs(k))
        n_out = min(n, int(np.floor(n / float(stride) + 2 * ramp_bins)))
        kept, targets = 2 * np.abs(k) <= n_out, k % n_out
    operator = np.zeros((n_out, n))
    operator[targets[kept], np.flatnonzero(kept)] = weights[kept]
    result: np.ndarray = np.fft.ifft(np.eye(n_out), axis=0) @ operator
    return result


def column_weights(n: int, stride: np.float32, ramp_bins: float, faults: tuple[str, ...]) -> tuple[np.ndarray, int]:
    """Weights of the lowest columns of a half spectrum, and how many columns they become."""
    wider = 1 if "wide columns" in faults else 0  # the ramp begins one bin above the cut-off
    weights = ramp(np.float32(n) / stride / np.float32(2) + np.float32(wider), ramp_bins, np.arange(n // 2 + 1))
    if "last column" in faults:
        # Of an even size, whatever it was before, and the highest frequency kept counts as Nyquist: half is lost.
        weights = weights[weights > 0]
        return weights, 2 * (len(weights) - 1)
    n_out = min(n, int(np.floor(n / float(stride) + 2 * ramp_bins)) + 2 * wider)
    weights = weights[: n_out // 2 + 1].copy()
    if n_out % 2 == 0 and n_out < n:
        weights[-1] *= 2  # both halves of the Nyquist bin
    return weights, n_out


def modelled(x: np.ndarray, strides: np.ndarray, ramp_bins: float, faults: tuple[str, ...]) -> np.ndarray:
    """Pooling by this package's equations, with some of the published layer's faults put in."""
    h, w = x.shape[-2:]
    spectrum = np.fft.fft(np.fft.rfft(x, axis=-1), axis=-2)
    rows = row_operator(h, strides[0], ramp_bins, faults) @ spectrum
    weights, w_out = column_weights(w, strides[1], ramp_bins, faults)
    pooled: np.ndarray = np.fft.irfft(rows[..., : len(weights)] * weights, n=w_out, axis=-1)
    # The published layer scales by the bins that are left: a constant 1 becomes H W / (H_out W_out).
    return pooled if "scale" in faults else pooled * (pooled.shape[-2] * w_out) / (h * w)


def difference(a: np.ndarray, b: np.ndarray, *, like: np.ndarray) -> float:
    """Norm of the difference of two pooled maps, relative to the second, as functions on the grid of the input."""
    on_grid = []
    for y in (a, b):
        for axis in (-2, -1):
            y = scipy.signal.resample(y, like.shape[axis], axis=axis)
        on_grid.append(y)
    return float(np.linalg.norm(on_grid[0] - on_grid[1]) / np.linalg.norm(on_grid[1]))


def cases(size: str) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]]:
    """Records, inputs, strides that were used, and results of one size of maps."""
    records = json.loads((REFERENCE / "index.json").read_text(encoding="utf-8"))
    with np.load(REFERENCE / f"diffstride_{size}.npz") as stored:
        x = stored["x"].astype(np.float64)
        found = [
            (record, x, stored[f"{record['key']}/strides_after"], stored[f"{record['key']}/out"].astype(np.float64))
            for record in records
            if record.get("file") == f"diffstride_{size}.npz"
        ]
    assert len(found) == 24
    assert {record["R"] for record, *_ in found} == {1.0, 2.5, 4.0}
    return found


@pytest.mark.parametrize("size", MAPS)
def test_the_model_without_faults_is_this_package(size: str) -> None:
    for record, x, strides, _ in cases(size):
        ours = diffstride_pool(torch.from_numpy(x), torch.from_numpy(strides).double(), ramp_bins=record["R"]).numpy()
        model = modelled(x, strides, record["R"], ())
        assert model.shape == ours.shape, record["key"]
        # Weights in float32 here: a cut-off of 48 bins is rounded by 2e-6, on a ramp of one bin.
        np.testing.assert_allclose(model, ours, rtol=0, atol=2e-6 * np.abs(ours).max(), err_msg=record["key"])


@pytest.mark.parametrize("size", MAPS)
def test_the_model_with_all_faults_is_the_published_layer(size: str) -> None:
    for record, x, strides, published in cases(size):
        model = modelled(x, strides, record["R"], FAULTS)
        assert model.shape == published.shape, record["key"]
        # Two float32 FFTs on the other side.
        np.testing.assert_allclose(model, published, rtol=0, atol=1e-5 * np.abs(published).max(), err_msg=record["key"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size", MAPS)
def test_every_fault_is_needed(size: str, fault: str) -> None:
    without = tuple(each for each in FAULTS if each != fault)
    # The last column stands at the end of the ramp, with little weight. The model errs by 1e-5 at most.
    least, count = 3e-4 if fault == "last column" else 0.02, 0
    for record, x, strides, published in cases(size):
        if record["R"] == 4.0 and min(record["strides"]) > 1:
            count += 1
            found = difference(modelled(x, strides, 4.0, without), published, like=x)
            assert found > least, f"{record['key']}: {found:.3f}"
    assert count == 6


@pytest.mark.parametrize("size", MAPS)
def test_this_package_differs_from_the_published_layer_by_that_much(size: str) -> None:
    h, w = map(int, size.split("x"))
    for ramp_bins in (4.0, 2.5, 1.0):
        found = {"as it is": [], "scaled": []} | {fault: [] for fault in FAULTS}  # type: ignore[var-annotated]
        for record, x, strides, published in cases(size):
            if record["R"] == ramp_bins:
                ours = diffstride_pool(torch.from_numpy(x), torch.from_numpy(strides), ramp_bins=ramp_bins).numpy()
                scaled = published * (published.shape[-2] * published.shape[-1]) / (h * w)
                found["as it is"].append(difference(published, ours, like=x))
                found["scaled"].append(difference(scaled, ours, like=x))
                for fault in FAULTS:
                    found[fault].append(difference(modelled(x, strides, ramp_bins, (fault,)), ours, like=x))
        # Shown by pytest -s: relative to this package's result, over eight pairs of strides from (1, 1) to (2.6, 6.1).
        for name, values in found.items():
            assert len(values) == 8
            print(
                f"{size} R={ramp_bins:g} {name}: median {np.median(values):.3f}, {min(values):.3f} to {max(values):.3f}"
            )
        assert min(found["scaled"]) > 0.05
        assert np.median(found["scaled"]) > 0.1
        assert np.median(found["as it is"]) > 0.5

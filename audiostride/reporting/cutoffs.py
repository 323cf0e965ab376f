"""From strides to what a model listens to: cut-offs in Hz over time and in cycles per mel over frequency."""

import math

import pandas as pd

from audiostride.checks import check_positive
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, PooledEncoder
from audiostride.models.pooled import PooledBlock
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.masks import nominal_ramp
from audiostride.strides.spectral_pool import SpectralPool2d

AXES = ("time", "mel")
UNITS = {"time": "Hz", "mel": "cycles/mel"}
FRAME_RATE_HZ = 100.0  # for an encoder without its classifier: the paper's 10 ms hop


def cutoff_table(model: AudioClassifier | PooledEncoder, window_s: float = 1.0) -> pd.DataFrame:
    """What each layer of a model passes, one row per layer and axis.

    Over a window of T seconds the FFT bins of the time axis lie 1/T Hz apart, at every layer; those of the mel axis lie
    1/M cycles/mel apart, M being the number of mel bands. With n bins and stride S the cut-off is bin ``n / (2 S)``,
    which is ``rate / (2 S)`` (Riad et al. 2022, section 3.1); Table 2 of the paper gives it rounded down to a bin, with
    windows of 1.6 s.

    Args:
        model: A classifier, or an encoder (64 mel bands, 100 frames a second).
        window_s: Length of the windows that the model sees, in seconds, > 0.

    Returns:
        A table with the columns ``layer`` (from 1), ``axis`` (time or mel), ``unit``, ``pooling``; ``stride`` (as
        used), ``n_in``, ``n_out`` (bins) and ``effective_stride`` (their ratio); the edges of the mask ``pass_edge``
        (last frequency with weight 1), ``half_edge`` (weight 1/2) and ``stop_edge`` (first with weight 0), in `unit`
        and, with the suffix ``_bins``, in bins, none above the Nyquist frequency; ``cutoff``, the paper's ``rate / (2
        S)``, and ``cutoff_floor``, the same rounded down to a bin. A hard crop has its three edges in one place.
        Strided convolution has no mask (its edges are NaN): what lies above its cut-off folds down to lower
        frequencies.

    Raises:
        InputError: Another kind of model; a window that is not positive.
    """
    check_positive("cutoff_table", window_s=window_s)
    encoder: PooledEncoder
    if isinstance(model, AudioClassifier):
        encoder, n_mels = model.encoder, model.config.n_mels
        frame_rate_hz = model.config.sample_rate / model.config.hop_length
    elif isinstance(model, PooledEncoder):
        encoder, n_mels, frame_rate_hz = model, 64, FRAME_RATE_HZ
    else:
        raise InputError(f"cutoff_table: model must be an AudioClassifier or an Encoder, got {type(model).__name__}")
    layers = encoder.pooled_layers(math.ceil(window_s * frame_rate_hz - 1e-9), n_mels)
    bin_width = {"time": 1 / window_s, "mel": 1 / n_mels}
    rows = []
    for layer, (block, n_in, n_out) in enumerate(layers, start=1):
        for number, (axis, stride) in enumerate(zip(AXES, block.used_strides(*n_in), strict=True)):
            n = n_in[number]
            cutoff_bin = n / (2 * stride)
            edges = mask_edges(block, number, n, stride, n_out[number])
            rows.append(
                {
                    "layer": layer,
                    "axis": axis,
                    "unit": UNITS[axis],
                    "pooling": encoder.pooling,
                    "stride": stride,
                    "n_in": n,
                    "n_out": n_out[number],
                    "effective_stride": n / n_out[number],
                    **{f"{name}_bins": edge for name, edge in edges.items()},
                    **{name: edge * bin_width[axis] for name, edge in edges.items()},
                    "cutoff": cutoff_bin * bin_width[axis],
                    "cutoff_floor": math.floor(cutoff_bin) * bin_width[axis],
                }
            )
    return pd.DataFrame(rows)


def mask_edges(block: PooledBlock, axis: int, n: int, stride: float, n_out: int) -> dict[str, float]:
    """Pass, half-weight and stop edge of the mask of one axis in bins, none above the Nyquist frequency."""
    cutoff_bin = n / (2 * stride)
    if isinstance(block.pool, DiffStride2d):
        ramp_bins = block.pool.axes[axis].ramp_bins
        if block.pool.axes[axis].size != "nominal":
            pass_edge, stop_edge = cutoff_bin, cutoff_bin + ramp_bins
        else:
            pass_edge, stop_edge = cutoff_bin - nominal_ramp(cutoff_bin, ramp_bins), cutoff_bin
    elif isinstance(block.pool, SpectralPool2d):
        pass_edge = stop_edge = n_out / 2
    else:
        pass_edge = stop_edge = math.nan
    edges = {"pass_edge": pass_edge, "half_edge": (pass_edge + stop_edge) / 2, "stop_edge": stop_edge}
    return {name: min(edge, n / 2) if edge == edge else edge for name, edge in edges.items()}


def summarise_cutoffs(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (of the sample; NaN for one run) over runs, per pooling, layer and axis.

    Args:
        tables: One `cutoff_table` per run.

    Returns:
        A table with the columns of the first, ``runs``, and ``_sd`` columns for stride, edges and cut-offs.
    """
    keys = ["pooling", "layer", "axis", "unit"]
    numbers = [name for name in tables[0].columns if name not in keys]
    grouped = pd.concat(tables).groupby(keys, sort=False)
    spread = grouped[[name for name in numbers if not name.endswith("_bins")]].std().add_suffix("_sd")
    return pd.concat([grouped.size().rename("runs"), grouped[numbers].mean(), spread], axis=1).reset_index()


def format_cutoffs(summary: pd.DataFrame) -> str:
    """The summary as a table for the terminal."""

    def number(row: pd.Series, name: str, digits: int) -> str:
        value, spread = row[name], row[f"{name}_sd"]
        if value != value:
            return "-"
        return f"{value:.{digits}f}" + (f" ({spread:.{digits}f})" if row["runs"] > 1 else "")

    lines = []
    for _, row in summary.iterrows():
        digits = 2 if row["unit"] == "Hz" else 4
        lines.append(
            {
                "pooling": row["pooling"],
                "layer": row["layer"],
                "axis": row["axis"],
                "stride": number(row, "stride", 2),
                "bins": f"{row['n_in']:g}->{row['n_out']:g}",
                "effective": number(row, "effective_stride", 2),
                "pass edge": number(row, "pass_edge", digits),
                "half": number(row, "half_edge", digits),
                "stop edge": number(row, "stop_edge", digits),
                "cut-off": number(row, "cutoff", digits),
                "to a bin": number(row, "cutoff_floor", digits),
                "unit": row["unit"],
            }
        )
    return pd.DataFrame(lines).to_string(index=False)

"""From strides to what a model listens to: cut-offs in Hz over time and in cycles per mel over frequency."""

import math

import pandas as pd

from audiostride.audio.log_mel import hz_to_mel
from audiostride.checks import check_positive
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, PooledEncoder
from audiostride.models.pooled import PooledBlock
from audiostride.strides.diffstride import DiffStride2d
from audiostride.strides.masks import nominal_ramp
from audiostride.strides.spectral_pool import SpectralPool2d

AXES = ("time", "mel")
UNITS = {"time": "Hz", "mel": "cycles/mel"}
# Table 2 of the paper: stride over time, over mel, cut-off in Hz, in cycles/mel of the first layer; means over three
# runs, standard deviation in brackets.
TABLE_2 = {
    "scenes": ("1.89 (0.05)", "1.99 (0.03)", "26.25 (0.63)", "0.2448 (0.009)"),
    "birds": ("1.91 (0.02)", "1.96 (0.01)", "25.83 (0.36)", "0.2500 (0.000)"),
    "instrument": ("1.29 (0.06)", "2.12 (0.01)", "38.33 (1.57)", "0.2292 (0.009)"),
    "pitch": ("1.32 (0.10)", "1.61 (0.07)", "37.50 (2.72)", "0.3021 (0.018)"),
    "speech": ("1.97 (0.00)", "1.95 (0.01)", "25.00 (0.00)", "0.2500 (0.000)"),
    "multi-task": ("1.46 (0.01)", "1.79 (0.03)", "34.17 (0.30)", "0.2708 (0.0074)"),
}
WINDOW_S = 1.6  # of the paper's cut-offs, which are rounded down to a bin over 160 frames and 64 bands
AT_HZ = 1000.0
F0_HZ = (100, 200, 400)  # of tones whose harmonics are told of
FRAME_RATE_HZ = 100.0  # for an encoder without its classifier: the paper's 10 ms hop


def bands_per(config: ClassifierConfig, at_hz: float) -> dict[str, float]:
    """How many mel bands of a frontend lie in an octave and in a kHz at a frequency in Hz.

    The mel of O'Shaughnessy is ``2595 log10(1 + f / 700)``, whose slope is ``2595 / ln 10 / (700 + f)``.
    """
    mel_per_band = (hz_to_mel(config.fmax_hz) - hz_to_mel(config.fmin_hz)) / (config.n_mels + 1)
    per_hz = 2595 / math.log(10) / (700 + at_hz) / mel_per_band
    return {"octave": per_hz * at_hz * math.log(2), "khz": 1000 * per_hz}


def harmonics_limit(config: ClassifierConfig, cutoff: float, f0_hz: float) -> float:
    """Up to where, in Hz, harmonics of a tone lie no closer than a cut-off in cycles/mel tells apart; 0 is nowhere.

    Harmonics are f0 apart, which is fewer mel bands the higher they lie: ``1 / (f0 x bands per Hz)`` cycles/mel reach
    the cut-off at the frequency that this gives, at most the highest of the frontend.
    """
    bands_per_hz = bands_per(config, 0.0)["khz"] / 1000  # at 0 Hz; it falls as 700 / (700 + f)
    found = 700 * (cutoff * f0_hz * bands_per_hz - 1)
    return min(max(found, 0.0), config.fmax_hz) if found > config.fmin_hz else 0.0


def choose_frequency(config: ClassifierConfig) -> float:
    """A frequency in Hz inside the bands of a frontend: 1 kHz, or the geometric middle of its limits."""
    inside = config.fmin_hz < AT_HZ < config.fmax_hz
    return AT_HZ if inside else round(math.sqrt(max(config.fmin_hz, 1.0) * config.fmax_hz))


def cutoff_table(
    model: AudioClassifier | PooledEncoder, window_s: float = 1.0, *, at_hz: float | None = None
) -> pd.DataFrame:
    """What each layer of a model passes, one row per layer and axis.

    Over a window of T seconds the FFT bins of the time axis lie 1/T Hz apart, at every layer; those of the mel axis lie
    1/M cycles/mel apart, M being the number of mel bands. With n bins and stride S the cut-off is bin ``n / (2 S)``,
    which is ``rate / (2 S)`` (Riad et al. 2022, section 3.1); Table 2 of the paper gives it rounded down to a bin, with
    windows of 1.6 s.

    Args:
        model: A classifier, or an encoder (64 mel bands, 100 frames a second).
        window_s: Length of the windows that the model sees, in seconds, > 0.
        at_hz: Where cycles per mel band are told in cycles per octave and per kHz too, in Hz; None is 1 kHz, or the
            geometric middle of the model's limits where that is not between them.

    Returns:
        A table with the columns ``layer`` (from 1), ``axis`` (time or mel), ``unit``, ``pooling``; ``stride`` (as
        used), ``n_in``, ``n_out`` (bins) and ``effective_stride`` (their ratio); the edges of the mask ``pass_edge``
        (last frequency with weight 1), ``half_edge`` (weight 1/2) and ``stop_edge`` (first with weight 0), in `unit`
        and, with the suffix ``_bins``, in bins, none above the Nyquist frequency; ``cutoff``, the paper's ``rate / (2
        S)``, and ``cutoff_floor``, the same rounded down to a bin; of the mel axis also ``cutoff_per_octave`` and
        ``cutoff_per_khz`` at the frequency ``at_hz``, and ``harmonics_100``, ``_200`` and ``_400``: where in Hz the
        harmonics of such a tone come closer than the cut-off (see `harmonics_limit`). A hard crop has its three edges
        in one place. Strided convolution has no mask (its edges are NaN): what lies above its cut-off folds down to
        lower frequencies.

    Raises:
        InputError: Another kind of model; a window that is not positive.
    """
    check_positive("cutoff_table", window_s=window_s)
    encoder: PooledEncoder
    if isinstance(model, AudioClassifier):
        encoder, config, n_mels = model.encoder, model.config, model.config.n_mels
        frame_rate_hz = config.sample_rate / config.hop_length
    elif isinstance(model, PooledEncoder):
        encoder, n_mels, frame_rate_hz = model, 64, FRAME_RATE_HZ
        config = ClassifierConfig(tasks={"": ["a", "b"]})
    else:
        raise InputError(f"cutoff_table: model must be an AudioClassifier or an Encoder, got {type(model).__name__}")
    layers = encoder.pooled_layers(math.ceil(window_s * frame_rate_hz - 1e-9), n_mels)
    bin_width = {"time": 1 / window_s, "mel": 1 / n_mels}
    at_hz = choose_frequency(config) if at_hz is None else at_hz
    check_positive("cutoff_table", at_hz=at_hz)
    per = bands_per(config, at_hz)
    rows = []
    for layer, (block, sizes_in, sizes_out) in enumerate(layers, start=1):
        strides = block.used_strides(*sizes_in)
        for number, (axis, stride, n, n_out) in enumerate(zip(AXES, strides, sizes_in, sizes_out, strict=True)):
            edges, cutoff_bin = mask_edges(block, number, n, stride, n_out), n / (2 * stride)
            rows.append(
                {
                    "layer": layer,
                    "axis": axis,
                    "unit": UNITS[axis],
                    "pooling": encoder.pooling,
                    "stride": stride,
                    "n_in": n,
                    "n_out": n_out,
                    "effective_stride": n / n_out,
                    **{f"{name}_bins": edge for name, edge in edges.items()},
                    **{name: edge * bin_width[axis] for name, edge in edges.items()},
                    "cutoff": cutoff_bin * bin_width[axis],
                    "cutoff_floor": math.floor(cutoff_bin) * bin_width[axis],
                    **{
                        f"cutoff_per_{unit}": cutoff_bin * bin_width[axis] * bands if axis == "mel" else math.nan
                        for unit, bands in per.items()
                    },
                    "at_hz": at_hz if axis == "mel" else math.nan,
                    **{
                        f"harmonics_{f0}": harmonics_limit(config, cutoff_bin * bin_width[axis], f0)
                        if axis == "mel"
                        else math.nan
                        for f0 in F0_HZ
                    },
                }
            )
    return pd.DataFrame(rows)


def mask_edges(block: PooledBlock, axis: int, n: int, stride: float, n_out: int) -> dict[str, float]:
    """Pass, half-weight and stop edge of the mask of one axis in bins, none above the Nyquist frequency."""
    cutoff_bin = n / (2 * stride)
    pass_edge = stop_edge = math.nan
    if isinstance(block.pool, DiffStride2d):
        ramp_bins = block.pool.axes[axis].ramp_bins
        if block.pool.axes[axis].size == "nominal":
            pass_edge, stop_edge = cutoff_bin - nominal_ramp(cutoff_bin, ramp_bins), cutoff_bin
        else:
            pass_edge, stop_edge = cutoff_bin, cutoff_bin + ramp_bins
    elif isinstance(block.pool, SpectralPool2d):
        pass_edge = stop_edge = n_out / 2
    edges = {"pass_edge": pass_edge, "half_edge": (pass_edge + stop_edge) / 2, "stop_edge": stop_edge}
    return {name: edge if math.isnan(edge) else min(edge, n / 2) for name, edge in edges.items()}


def summarise_cutoffs(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (of the sample; NaN for one run) over tables of runs, per pooling, layer and axis.

    Returns:
        A table with the columns of the first, ``runs``, and ``_sd`` columns for stride, edges and cut-offs.
    """
    keys = ["pooling", "layer", "axis", "unit"]
    numbers = [name for name in tables[0].columns if name not in keys]
    grouped = pd.concat(tables).groupby(keys, sort=False)
    spread = (
        grouped[[name for name in numbers if not name.endswith("_bins") and name != "at_hz"]].std().add_suffix("_sd")
    )
    return pd.concat([grouped.size().rename("runs"), grouped[numbers].mean(), spread], axis=1).reset_index()

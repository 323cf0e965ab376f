import math

import pandas as pd
import pytest
import torch

from audiostride import AudioClassifier, ClassifierConfig, Encoder, cutoff_table
from audiostride.audio.log_mel import hz_to_mel
from audiostride.errors import InputError
from audiostride.reporting import format_cutoffs, summarise_cutoffs
from audiostride.strides.masks import passband_mask

# Riad et al. 2022, Table 2, means of 3 runs: strides of the first layer (time, mel), cut-offs in Hz and cycles/mel.
TABLE_2 = {
    "acoustic scenes": (1.89, 1.99, 26.25, 0.2448),
    "birdsong": (1.91, 1.96, 25.83, 0.2500),
    "instrument": (1.29, 2.12, 38.33, 0.2292),
    "pitch": (1.32, 1.61, 37.50, 0.3021),
    "speech commands": (1.97, 1.95, 25.00, 0.2500),
    "multi-task": (1.46, 1.79, 34.17, 0.2708),
}


def make_model(**settings: object) -> AudioClassifier:
    config = ClassifierConfig(tasks={"t": ["a", "b"]}, **{"channels": (2, 2), "strides": ((2, 2), (3, 1)), **settings})
    return AudioClassifier(config)


def row(table: pd.DataFrame, layer: int, axis: str) -> pd.Series:
    found = table[(table["layer"] == layer) & (table["axis"] == axis)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("name", TABLE_2)
def test_the_papers_strides_give_its_cutoffs(name: str) -> None:
    stride_time, stride_mel, hertz, cycles = TABLE_2[name]
    table = cutoff_table(make_model(size="paper", strides=((stride_time, stride_mel), (2, 2))), window_s=1.6)
    for axis, paper, bin_width in (("time", hertz, 100 / 160), ("mel", cycles, 1 / 64)):
        found = row(table, 1, axis)
        # The paper averages three cut-offs rounded down to a bin; the strides it prints have two digits.
        assert paper - 0.5e-4 <= found["cutoff"]
        assert found["cutoff"] - bin_width < paper
        assert found["cutoff_floor"] <= found["cutoff"] < found["cutoff_floor"] + bin_width


def test_the_cutoff_is_the_rate_over_twice_the_stride() -> None:
    table = cutoff_table(make_model(strides=((1.6, 2.5), (2, 2))))
    assert row(table, 1, "time")["cutoff"] == pytest.approx(100 / 3.2)
    assert row(table, 1, "mel")["cutoff"] == pytest.approx(1 / 5)
    # The second layer sees ceil(100 / 1.6) = 63 frames a second.
    assert row(table, 2, "time")["cutoff"] == pytest.approx(63 / 4)
    assert row(table, 2, "mel")["cutoff"] == pytest.approx(26 / 64 / 4)


@pytest.mark.parametrize("size", ["paper", "nominal"])
@pytest.mark.parametrize("ramp_bins", [2.0, 4.0])
def test_the_edges_are_those_of_the_mask(size: str, ramp_bins: float) -> None:
    table = cutoff_table(make_model(size=size, ramp_bins=ramp_bins, strides=((1.7, 2.3), (1.9, 3.1))))
    assert len(table) == 4
    for _, found in table.iterrows():
        n = found["n_in"]
        mask = passband_mask(n, found["stride"], ramp_bins=ramp_bins, size=size)
        for k, weight in enumerate(mask.tolist()):
            if k == 0 or k <= found["pass_edge_bins"] - 1e-3:
                assert weight == pytest.approx(1)
            elif k >= found["stop_edge_bins"] + 1e-3:
                assert weight == pytest.approx(0, abs=1e-6)
            else:
                assert (weight > 0.5) == (k < found["half_edge_bins"]) or weight == pytest.approx(0.5)


def test_rows_name_what_was_obtained() -> None:
    model = make_model(strides=((2, 2), (3, 1)))
    table = cutoff_table(model)
    assert list(zip(table["layer"], table["axis"], strict=True)) == [(1, "time"), (1, "mel"), (2, "time"), (2, "mel")]
    assert table["unit"].tolist() == ["Hz", "cycles/mel"] * 2
    assert table["n_in"].tolist() == [100, 64, 50, 32]
    assert table["n_out"].tolist() == [50, 32, 17, 32]
    assert row(table, 2, "time")["effective_stride"] == pytest.approx(50 / 17)


def test_the_window_sets_the_bins() -> None:
    one, two = cutoff_table(make_model()), cutoff_table(make_model(), window_s=2.0)
    assert row(two, 1, "time")["n_in"] == 2 * row(one, 1, "time")["n_in"]
    assert row(two, 1, "time")["cutoff"] == row(one, 1, "time")["cutoff"]
    assert row(two, 1, "time")["pass_edge_bins"] > row(one, 1, "time")["pass_edge_bins"]


def test_strided_and_spectral_models_have_rows() -> None:
    strided = cutoff_table(make_model(pooling="strided"))
    assert strided["stride"].tolist() == [2, 2, 3, 1]
    assert strided[["pass_edge", "half_edge", "stop_edge"]].isna().all(axis=None)
    assert strided["cutoff"].tolist() == pytest.approx([25, 0.25, 50 / 6, 0.25])
    spectral = cutoff_table(make_model(pooling="spectral", strides=((2.5, 2), (3, 1))))
    assert spectral["n_out"].tolist() == [40, 32, 13, 32]
    first = row(spectral, 1, "time")
    assert first["pass_edge"] == first["half_edge"] == first["stop_edge"] == 20


def test_an_encoder_alone_has_a_table() -> None:
    table = cutoff_table(Encoder(channels=(2, 2), strides=((2, 2), (3, 1))))
    pd.testing.assert_frame_equal(table, cutoff_table(make_model()))


def test_learned_strides_show_in_the_table() -> None:
    model = make_model()
    with torch.no_grad():
        model.encoder.blocks[0].pool.strides.copy_(torch.tensor([3.5, 0.2]))
    table = cutoff_table(model)
    assert row(table, 1, "time")["stride"] == 3.5
    assert row(table, 1, "mel")["stride"] == 1.0  # as it is used: limited


def test_other_models_and_windows_are_refused() -> None:
    with pytest.raises(InputError, match="got Linear"):
        cutoff_table(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="window_s must be > 0, got 0"):
        cutoff_table(make_model(), window_s=0)


def test_several_runs_give_mean_and_sd() -> None:
    tables = [cutoff_table(make_model(strides=((stride, 2), (2, 2)))) for stride in (1.5, 2.0, 2.8)]
    summary = summarise_cutoffs(tables)
    first = row(summary, 1, "time")
    assert first["runs"] == 3
    assert first["stride"] == pytest.approx(2.1)
    assert first["stride_sd"] == pytest.approx(math.sqrt(0.43))
    assert "2.10 (0.66)" in format_cutoffs(summary)
    single = format_cutoffs(summarise_cutoffs(tables[:1]))
    assert "(" not in single
    assert "nan" not in single


def test_strided_rows_print_a_dash_for_the_mask() -> None:
    text = format_cutoffs(summarise_cutoffs([cutoff_table(make_model(pooling="strided"))]))
    assert "nan" not in text
    assert " - " in text


@pytest.mark.parametrize("stride", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("f0", [100, 200, 400])
def test_harmonics_pass_up_to_where_they_lie_too_close(stride: float, f0: int) -> None:
    """Counted: the bands between two harmonics of the tone, all the way up."""
    model = make_model(strides=((2, stride), (2, 1)))
    found = row(cutoff_table(model), 1, "mel")
    config = model.config
    low, high = hz_to_mel(config.fmin_hz), hz_to_mel(config.fmax_hz)

    def band(hz: float) -> float:
        return (hz_to_mel(hz) - low) / (high - low) * (config.n_mels + 1)

    apart = [hz for hz in range(60, 7800, 5) if 1 / (band(hz + f0 / 2) - band(hz - f0 / 2)) < found["cutoff"]]
    assert found[f"harmonics_{f0}"] == pytest.approx(max(apart, default=0), abs=20)
    assert math.isnan(row(cutoff_table(model), 1, "time")[f"harmonics_{f0}"])


@pytest.mark.parametrize("at_hz", [300.0, 1000.0, 5000.0])
def test_mel_cutoffs_in_octaves_and_kilohertz_are_counts_of_bands(at_hz: float) -> None:
    model = make_model()
    found = row(cutoff_table(model, at_hz=at_hz), 1, "mel")
    # The bands between two frequencies close to this one, counted on the frontend's own scale.
    edges = [hz_to_mel(model.config.fmin_hz), hz_to_mel(model.config.fmax_hz)]
    for name, low_hz, high_hz, width in (
        ("cutoff_per_octave", at_hz * 2**-0.005, at_hz * 2**0.005, 0.01),
        ("cutoff_per_khz", at_hz - 1, at_hz + 1, 0.002),
    ):
        bands = (hz_to_mel(high_hz) - hz_to_mel(low_hz)) * 65 / (edges[1] - edges[0])
        assert found[name] == pytest.approx(found["cutoff"] * bands / width, rel=1e-4)
    assert found["at_hz"] == at_hz


def test_frequencies_lie_between_the_models_limits() -> None:
    table = cutoff_table(make_model(sample_rate=250_000, fmin_hz=15_000, fmax_hz=120_000, hop_length=250))
    assert 15_000 < row(table, 1, "mel")["at_hz"] < 120_000
    assert row(cutoff_table(make_model()), 1, "mel")["at_hz"] == 1000
    assert math.isnan(row(table, 1, "time")["at_hz"])
    assert math.isnan(row(table, 1, "time")["cutoff_per_octave"])
    assert cutoff_table(make_model().encoder)["cutoff_per_khz"].notna().sum() == 2
    with pytest.raises(InputError, match="cutoff_table: at_hz"):
        cutoff_table(make_model(), at_hz=0.0)

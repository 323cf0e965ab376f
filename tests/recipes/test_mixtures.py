"""Clips that are summed: what is mixed, and the whole recipe on tiny data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from audiostride.errors import InputError
from mixtures import draw_mixtures, mix

Cells = Callable[[str], list[list[str]]]


def make_clips(counts: dict[str, int]) -> pd.DataFrame:
    rows = [
        {"split": split, "label": label, "path": f"/{split}{label}{number}", "start_s": 0.0, "duration_s": np.nan}
        for split in ("train", "valid", "test")
        for label, count in counts.items()
        for number in range(count)
    ]
    return pd.DataFrame(rows)


def test_each_clip_leads_a_mixture_of_two_or_three_classes_of_its_split() -> None:
    clips = make_clips({"a": 8, "b": 3, "c": 5, "d": 1})
    found = draw_mixtures(clips, seed=0)
    assert found == draw_mixtures(clips, seed=0) != draw_mixtures(clips, seed=1)
    assert [first for first, _, _ in found] == clips.index.tolist()
    assert {len(members) for _, members, _ in found} == {2, 3}
    for first, members, levels_db in found:
        own = clips.loc[members]
        assert members[0] == first
        assert own["split"].nunique() == 1
        assert own["label"].is_unique
        assert len(levels_db) == len(members)
        assert all(-10 <= level <= 0 for level in levels_db)
    with pytest.raises(InputError, match="three classes or more in split 'train', got 2"):
        draw_mixtures(make_clips({"a": 3, "b": 3}), seed=0)


def test_a_mixture_is_the_sum_at_its_levels_and_within_full_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(-0.4, 0.4, 3000), rng.uniform(-0.4, 0.4, 2000)
    for name, samples in (("one", one), ("two", two)):
        soundfile.write(str(tmp_path / f"{name}.wav"), samples, 16000, subtype="FLOAT")
    clips = pd.DataFrame({"path": [str(tmp_path / "one.wav"), str(tmp_path / "two.wav")]})
    clips = clips.assign(start_s=0.0, duration_s=np.nan)
    expected = one / 2 + np.concatenate([two, two[:1000]])
    np.testing.assert_allclose(mix(clips, [20 * np.log10(0.5), 0.0]), expected, atol=1e-6)
    loud = mix(clips, [20.0, 20.0])
    assert np.abs(loud).max() == pytest.approx(0.99, abs=1e-6)


@pytest.mark.slow
def test_smoke_runs_whole_and_a_second_call_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cells: Cells, run_recipe: Callable[..., int]
) -> None:
    for stood in (0, 1 + 1 + 1 + 2):  # archive, manifest, mixtures, and the runs
        assert run_recipe("mixtures", "--smoke", "--out", tmp_path) == 0
        shown = capsys.readouterr().out
        assert shown.count("stands, skipped") == stood
        rows = cells(shown)[2:]
        assert rows[-1][0] == "mean"
        known = [row for row in rows if row[1] != "no test clip"]
        assert len(known) > 3
        assert all(0 <= float(cell.split()[0]) <= 100 for row in known for cell in row[1:])

"""Windows over annotated recordings: where they lie, which labels they have, and that no annotation is lost unsaid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiostride.dataset.importers.annotated_windows import Annotation, WindowSettings, label_windows, tile
from audiostride.errors import InputError


def windows(*parts: tuple[float, float, str], duration_s: float = 10.0, **settings: object):
    annotations = [Annotation(start, end, (label,) if label else ()) for start, end, label in parts]
    return label_windows(annotations, duration_s=duration_s, settings=WindowSettings(**settings))  # type: ignore[arg-type]


def test_around_puts_short_annotations_in_the_middle_and_tiles_long_ones() -> None:
    found = windows((3.0, 3.4, "a"), (5.0, 7.3, "b"))
    assert found.starts_s == pytest.approx([2.7, 5.0, 6.0, 6.3])
    assert found.labels == [("a",), ("b",), ("b",), ("b",)]
    assert windows((0.1, 0.3, "a"), (9.9, 10.0, "b")).starts_s == [0.0, 9.0], "windows stay in the recording"
    assert windows((5.0, 7.3, "b"), hop_s=0.5).starts_s == pytest.approx([5.0, 5.5, 6.0, 6.3])


def test_throughout_is_a_grid_to_the_end_with_background_between() -> None:
    found = windows((2.0, 4.0, "a"), duration_s=5.5, annotated="throughout")
    assert found.starts_s == [0.0, 1.0, 2.0, 3.0, 4.0, 4.5]
    assert found.labels == [(), (), ("a",), ("a",), (), ()]
    assert (found.n_touched, found.n_several, found.n_mixed, found.lost) == (0, 0, 0, [])


def test_a_short_annotation_across_a_border_of_the_grid_has_a_window_that_holds_it_whole() -> None:
    found = windows((1.8, 2.4, "a"), duration_s=4.0, annotated="throughout")
    # 0.2 of 0.6 s lie in the second window, 0.4 in the third.
    assert dict(zip(found.starts_s, found.labels, strict=True)) == {0.0: (), 1.6: ("a",), 2.0: ("a",), 3.0: ()}
    assert found.n_touched == 1


@pytest.mark.parametrize(("end", "label"), [(3.5, ("a",)), (3.49, None), (3.0, ())])
def test_the_least_overlap_is_a_share_of_the_window_and_what_is_less_is_neither(
    end: float, label: tuple[str, ...] | None
) -> None:
    found = windows((1.0, end, "a"), annotated="throughout")
    assert dict(zip(found.starts_s, found.labels, strict=True)).get(3.0) == label
    assert found.n_touched == (label is None)


def test_the_least_overlap_is_a_share_of_an_annotation_that_is_shorter() -> None:
    assert windows((2.6, 3.4, "a"), annotated="throughout", min_overlap=0.5).n_touched == 0
    found = windows((2.6, 3.4, "a"), annotated="throughout", min_overlap=0.6)
    assert (found.n_touched, [start for start, own in zip(found.starts_s, found.labels, strict=True) if own]) == (
        2,
        [2.5],
    )


def test_windows_with_several_labels_are_taken_on_wish_only_and_what_is_lost_is_named() -> None:
    both = [(2.0, 4.0, "a"), (3.0, 4.0, "b")]
    single = windows(*both, annotated="throughout")
    assert (single.n_several, single.lost) == (1, [1])
    assert 3.0 not in single.starts_s
    several = windows(*both, annotated="throughout", multi_label=True)
    assert (several.n_several, several.lost) == (0, [])
    assert several.labels[3] == ("a", "b")


def test_a_clip_into_which_another_label_reaches_a_little_is_counted() -> None:
    found = windows((2.0, 3.0, "a"), (2.9, 4.0, "b"), annotated="throughout")
    assert found.labels[2:4] == [("a",), ("b",)]
    assert (found.n_mixed, found.n_several, found.n_touched) == (1, 0, 0)
    assert windows((2.0, 2.9, "a"), (2.8, 4.0, "a"), annotated="throughout").n_mixed == 0


def test_what_is_there_without_a_label_is_no_background_and_takes_no_label_away() -> None:
    found = windows((2.1, 3.0, ""), (3.5, 4.2, "a"), (5.0, 6.0, "a"), annotated="throughout")
    taken = dict(zip(found.starts_s, found.labels, strict=True))
    assert 2.0 not in taken
    assert taken[5.0] == ("a",)
    assert found.lost == []
    assert windows((2.1, 3.0, "")).starts_s == []


def test_a_recording_shorter_than_a_window_is_one() -> None:
    for annotated in ("around", "throughout"):
        found = windows((0.1, 0.2, "a"), duration_s=0.4, annotated=annotated)
        assert (found.starts_s, found.length_s, found.labels) == ([0.0], 0.4, [("a",)])
    assert windows(duration_s=0.4, annotated="throughout").labels == [()]
    assert windows(duration_s=0.4).labels == []


def test_rounding_of_tables_touches_no_window() -> None:
    assert windows((1.0, 2.0001, "a"), annotated="throughout").n_touched == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_s": 0}, "window_s must be > 0"),
        ({"hop_s": -1.0}, "hop_s must be > 0"),
        ({"min_overlap": 0.0}, r"min_overlap must .*in \[0.001, 1\]"),
        ({"min_overlap": 1.1}, r"min_overlap must .*in \[0.001, 1\]"),
        ({"annotated": "all"}, "annotated must be"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WindowSettings(**settings)  # type: ignore[arg-type]


def test_tiles_end_where_the_span_ends() -> None:
    assert tile(1.0, 3.0, length=1.0, hop=0.5).tolist() == [1.0, 1.5, 2.0]
    assert tile(0.0, 1.0, length=1.0, hop=3.0).tolist() == [0.0]
    assert len(tile(0.0, 0.3, length=0.1, hop=0.1)) == 3, "0.3 / 0.1 is below 3"


spans = st.tuples(st.integers(0, 119), st.integers(1, 60), st.sampled_from(["a", "b", "c", ""]))
cases = st.fixed_dictionaries(
    {
        "window_s": st.sampled_from([0.3, 1.0, 2.5, 20.0]),
        "hop_s": st.sampled_from([None, 0.4, 1.0, 3.0]),
        "min_overlap": st.sampled_from([0.2, 0.5, 0.9, 1.0]),
        "annotated": st.sampled_from(["around", "throughout"]),
        "multi_label": st.booleans(),
    }
)


@given(st.lists(spans, max_size=8), cases)
def test_every_annotation_is_in_a_clip_or_listed_and_labels_are_those_of_a_plain_loop(
    parts: list[tuple[int, int, str]], case: dict[str, object]
) -> None:
    annotations = [(start / 10, min(start + length, 120) / 10, label) for start, length, label in parts]
    found = windows(*annotations, duration_s=12.0, **case)
    length, least = found.length_s, float(str(case["min_overlap"]))
    assert found.starts_s == sorted(set(found.starts_s))
    shown = set()
    for begin, labels in zip(found.starts_s, found.labels, strict=True):
        assert -1e-9 <= begin <= 12.0 - length + 1e-6
        expected, unclear = set(), False
        for number, (start, end, label) in enumerate(annotations):
            common = min(begin + length, end) - max(begin, start)
            enough = common >= least * min(length, end - start) - 1e-6
            if enough and label:
                expected.add(label)
                shown.add(number)
            unclear |= common > 1e-3
        assert set(labels) == expected
        assert labels or not unclear, "background has nothing in it"
        assert labels or case["annotated"] == "throughout"
        assert len(labels) <= 1 or case["multi_label"]
    named = {number for number, (_, _, label) in enumerate(annotations) if label}
    assert set(found.lost) == named - shown
    assert not (case["multi_label"] and found.lost)
    if case["multi_label"]:  # a short one is whole in some window
        for start, end, label in annotations:
            if label and end - start <= length:
                assert any(begin <= start + 1e-5 and end <= begin + length + 1e-5 for begin in found.starts_s)

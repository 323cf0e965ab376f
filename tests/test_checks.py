"""The checks of the lowest floor: what they let pass, and what they say."""

import math
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from audiostride.checks import (
    Count,
    Size,
    check_axes,
    check_bins,
    check_choice,
    check_positive,
    check_ramp_bins,
    check_stride,
    check_table,
    read_json,
)
from audiostride.errors import InputError


def test_input_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="who: strides must be finite and >= 1"):
        check_stride("who", 0)


@pytest.mark.parametrize("stride", [1, 1.0, 1e6])
def test_strides_from_one_on_pass(stride: float) -> None:
    assert check_stride("who", stride) == stride


@pytest.mark.parametrize("stride", [0.999, 0.0, -2.0, math.inf, math.nan])
def test_other_strides_raise(stride: float) -> None:
    with pytest.raises(
        InputError, match=rf"^who: strides must be finite and >= 1 .*got {stride}; use 1 to leave an axis"
    ):
        check_stride("who", stride)


@pytest.mark.parametrize("ramp_bins", [1e-3, 4, 100.0])
def test_positive_ramps_pass(ramp_bins: float) -> None:
    assert check_ramp_bins("who", ramp_bins) == ramp_bins


@pytest.mark.parametrize("ramp_bins", [0.0, -4.0, math.inf, math.nan])
def test_other_ramps_raise(ramp_bins: float) -> None:
    with pytest.raises(
        InputError, match=rf"^who: ramp_bins must be finite and > 0 FFT bins, got {ramp_bins}; .*Spectral"
    ):
        check_ramp_bins("who", ramp_bins)


def test_bins() -> None:
    assert check_bins("who", 1) == 1
    with pytest.raises(InputError, match=r"^who: an axis must have at least 1 bin, got 0; is the input empty"):
        check_bins("who", 0)


def test_choices_of_a_literal_and_of_a_sequence() -> None:
    check_choice("who", "size", "nominal", Size)
    check_choice("who", "split", "train", ["train", "test"])
    with pytest.raises(InputError, match=r"^who: size must be one of paper, nominal, folded, got 'Paper'$"):
        check_choice("who", "size", "Paper", Size)
    with pytest.raises(InputError, match=r"^who: split must be one of train, test, got 'dev'$"):
        check_choice("who", "split", "dev", ["train", "test"])


def test_positive_names_the_value_that_is_not() -> None:
    check_positive("who", width=0.5, n_mels=64)
    with pytest.raises(InputError, match=r"^who: n_mels must be > 0, got 0$"):
        check_positive("who", width=0.5, n_mels=0)
    with pytest.raises(InputError, match=r"^who: width must be > 0, got nan$"):
        check_positive("who", width=math.nan)


def test_one_value_per_axis() -> None:
    check_axes("who", (2.0, 2.0), 2, "strides")
    with pytest.raises(InputError, match=r"^who: strides must have one entry per axis \(2\), got 1: \(2\.0,\)$"):
        check_axes("who", [2.0], 2, "strides")


class Part(TypedDict):
    file: str
    rows: Count


class Header(TypedDict):
    kind: Literal["store"]
    parts: list[Part]
    shares: dict[str, float]
    span: tuple[int, str]
    mean: float | None
    note: NotRequired[str]


HEADER = {
    "kind": "store", "parts": [{"file": "a", "rows": 3}], "shares": {"a": 0.5}, "span": [1, "s"], "mean": None,
    "of a later version": [1],
}  # fmt: skip


def test_a_table_is_what_its_declaration_says_and_keeps_what_that_does_not_name() -> None:
    assert check_table("w", HEADER, Header) == HEADER
    assert check_table("w", HEADER | {"note": "n"}, Header)["note"] == "n"


ABSURD: Any = [[[[[[[[list(range(1000))] * 1000] * 1000] * 1000] * 1000] * 1000] * 1000]]
SELF: Any = []
SELF.append(SELF)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "shop"}, r"^w: kind must be one of store, got 'shop'$"),
        ({"kind": ["store"]}, r"^w: kind must be one of store, got \['store'\]$"),
        ({"parts": {}}, r"^w: parts must be a list, got \{\}$"),
        ({"parts": [3]}, r"^w: parts\[0\] must be a table, got 3$"),
        ({"parts": [{"rows": 3}]}, r"^w: parts\[0\] must have file, got none$"),
        ({"parts": [{"file": "a", "rows": 0}]}, r"^w: parts\[0\]\.rows must be a whole number >= 1, got 0$"),
        ({"parts": [{"file": "a", "rows": "3"}]}, r"^w: parts\[0\]\.rows must be a whole number >= 1, got '3'$"),
        ({"shares": {"a": math.nan}}, r"^w: shares\['a'\] must be a finite number, got nan$"),
        ({"shares": {1: 0.5}}, r"^w: a name in shares must be text, got 1$"),
        ({"span": [1]}, r"^w: span must have 2 entries, got \[1\]$"),
        ({"span": [1, 2]}, r"^w: span\[1\] must be text, got 2$"),
        ({"mean": "1"}, r"^w: mean must be a finite number, got '1'$"),
        ({"note": None}, r"^w: note must be text, got None$"),
        ({"note": ABSURD}, r"^w: note must be text, got .{1,5000}$"),
        ({"note": "x" * 10**6, "kind": "x" * 10**6}, r"^w: kind must be one of store, got .{1,300}$"),
        ({"mean": SELF}, r"^w: mean must be a finite number, got \[\[.{1,50}$"),
    ],
)
def test_a_table_that_is_something_else_is_named_with_place_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_table("w", HEADER | change, Header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}', None),
        (b"", "must be JSON, but reading it failed: Expecting value"),
        (b'{"a": 1', "must be JSON, but reading it failed: Expecting"),
        (b'{"a": "\xff"}', "must be JSON, but reading it failed: 'utf-8' codec"),
        (b"[" * 100_000, "must be JSON, but reading it failed: it is nested too deeply"),
        (b'{"a": NaN}', "must be JSON, but reading it failed: it has the value NaN"),
        (b'{"a": ' + b"9" * 5000 + b"}", "must be JSON, but reading it failed: Exceeds the limit"),
        (b'{"a": 1e999}', r"its content\['a'\] must be a finite number, got inf"),
        (b"[1]", "must be a table, got"),
        (b"null", "must be a table, got None"),
    ],
)
def test_json_is_read_or_answered_in_one_line_with_the_file(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    file = tmp_path / "j.json"
    file.write_bytes(content)
    if message is None:
        assert read_json("w", file, dict[str, float]) == {"a": 1}
        return
    with pytest.raises(InputError, match=f"^w: {file}.*{message}.*; write it anew$"):
        read_json("w", file, dict[str, float], advice="write it anew")


def test_a_json_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^w: .*/none must be JSON, .* failed: No such file or directory$"):
        read_json("w", tmp_path / "none", dict[str, Any])
    with pytest.raises(InputError, match=r"^w: .* must be JSON, but reading it failed: Is a directory$"):
        read_json("w", tmp_path, dict[str, Any])

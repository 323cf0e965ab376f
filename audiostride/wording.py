"""Words of messages: names in a line, numbers with their nouns, and text that can be printed anywhere."""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

MAX_NAMED = 20

# Control characters, separators of lines, and what stands for bytes of names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def escape(text: str, *, keep: str = "") -> str:
    """A text as it can be printed and written in UTF-8, with control characters and what is no text in escapes.

    >>> escape("caf\\udce9\\r.wav"), escape("two\\nlines\\t", keep="\\n")
    ('caf\\\\udce9\\\\r.wav', 'two\\nlines\\\\t')
    """
    return _UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text
    )


def name_some(names: Iterable[str]) -> str:
    """The first 20 of some names in order, and how many more there are.

    >>> name_some(["b", "a"])
    'a, b'
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - MAX_NAMED:,} more" if len(ordered) > MAX_NAMED else ""
    return ", ".join(map(escape, islice(ordered, MAX_NAMED))) + more


def count_of(number: float, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "clip"), count_of(8640, "clip"), count_of(0.5, "alarm")
    ('1 clip', '8,640 clips', '0.5 alarms')
    """
    return f"{number:,.12g} {noun}{'' if number == 1 else 's'}"


def advice_of(metrics: Mapping[str, Any], option: str = "") -> str:
    """What to do about a network that a support vector machine equals: no more steps where the best was early."""
    if (metrics.get("best_step") or 0) < (metrics.get("steps") or 0) / 2:
        return "look at the data first"
    return f"train longer{option}, or look at the data"


MICROCONTROLLER = 60e6  # multiply-adds a second of a Cortex-M4, by the networks of MLPerf Tiny


def describe_size(parameters: int, multiply_adds: int, *, window_s: float, window_ms: float | None = None) -> str:
    """What a network takes to store and to run.

    Args:
        parameters: Their number.
        multiply_adds: Of a window.
        window_s: Its length in seconds.
        window_ms: What it takes on the machine of the training, in ms, where that is known.

    >>> print(describe_size(56_000, 2_400_000, window_s=0.5, window_ms=1.2).replace("; ", ";\\n"))
    56,000 parameters, 224 kB in float32 and 56 kB in int8;
    4.8 million multiply-adds a second of audio, which take a Cortex-M4 some 0.08 s;
    a window of 0.5 s takes 1.2 ms on one thread here
    """
    a_second = multiply_adds / window_s
    here = "" if window_ms is None else f"; a window of {window_s:g} s takes {window_ms:.3g} ms on one thread here"
    return (
        f"{parameters:,} parameters, {4 * parameters / 1e3:,.0f} kB in float32 and {parameters / 1e3:,.0f} kB in int8; "
        f"{a_second / 1e6:.3g} million multiply-adds a second of audio, which take a Cortex-M4 some "
        f"{a_second / MICROCONTROLLER:.2g} s{here}"
    )


METRICS = {
    "accuracy": "accuracy",
    "average_precision": "macro average precision",
    "mixed": "accuracy or macro average precision",
}


def metric_of(metrics: Mapping[str, Any]) -> str:
    """What the numbers of a run or task call accuracy, in words.

    >>> metric_of({"accuracy": 0.5, "metric": "average_precision"}), metric_of({"accuracy": 0.5})
    ('macro average precision', 'accuracy')
    """
    return METRICS.get(str(metrics.get("metric", "accuracy")), str(metrics.get("metric")))


def html_table(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """Names and values as a small table, for notebooks.

    >>> html_table("a", [("b", "<c>")])
    '<table><caption>a</caption><tr><th>b</th><td>&lt;c&gt;</td></tr></table>'
    """
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table><caption>{html.escape(caption)}</caption>{cells}</table>"


def settings_html(settings: Any) -> str:
    """The settings of a dataclass that are not as they are by default, for notebooks."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changed = [field.name for field in fields(settings) if values[field.name] != field.default]
    rows: list[tuple[str, object]] = [(name, values[name]) for name in changed]
    others = len(values) - len(changed)
    return html_table(type(settings).__name__, [*rows, ("as by default", count_of(others, "other setting"))])

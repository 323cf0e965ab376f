"""Words of messages: names in a line, numbers with their nouns, and text that can be printed anywhere."""

import re
from collections.abc import Iterable, Mapping
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


def advice_of(metrics: Mapping[str, Any]) -> str:
    """What to do about a network that a classic baseline equals: no more steps where the best of them came early."""
    if (metrics.get("best_step") or 0) < (metrics.get("steps") or 0) / 2:
        return "look at the data first"
    return "train longer (--max-steps), or look at the data"


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

"""Windows over an annotated recording, and the labels that each has by its overlap with the annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from audiostride.checks import Positive, Range, check_settings

# What is annotated of a recording: all of it, or its annotations alone, so that nothing is known of what lies between.
Annotating = Literal["around", "throughout"]

# Programs write times with four to six digits: less in common than this is none.
MIN_COMMON_S = 1e-3

# Between numbers that were computed in different order.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Where windows lie in annotated recordings, and which labels they have.

    Raises:
        InputError: A value out of its range.
    """

    window_s: Positive = 1.0
    """Length of the windows in seconds; of a shorter recording, the whole is one."""
    hop_s: Positive | None = None
    """From one window to the next, in seconds; None is the window."""
    min_overlap: Annotated[float, Range(1e-3, 1, advice="e.g. 0.5, half of it")] = 0.5
    """Least overlap for a label: a share of the window, or of the annotation where that is shorter."""
    annotated: Annotating = "around"
    """``throughout``: windows lie on a grid, and those without annotations are background; ``around``: annotations
    alone have windows."""
    multi_label: bool = False
    """Whether windows with several labels are taken."""

    def __post_init__(self) -> None:
        check_settings("import", self)


class Annotation(NamedTuple):
    """A part of a recording with its labels; one without any says that something unknown is there."""

    start_s: float
    """Seconds, >= 0."""
    end_s: float
    """Seconds, above the start, inside the recording."""
    labels: tuple[str, ...]
    """Mostly one."""


@dataclass
class LabelledWindows:
    """The windows of a recording that are taken, and counts of what is not."""

    starts_s: list[float]
    """Where each begins, ascending."""
    length_s: float
    """Of all of them."""
    labels: list[tuple[str, ...]]
    """Of each, sorted; none is background."""
    n_touched: int
    """Windows left out: an annotation reaches into them, by less than the least overlap."""
    n_several: int
    """Windows left out: they have several labels."""
    n_mixed: int
    """Windows that are taken, into which an annotation of another label reaches by less than the least overlap."""
    lost: list[int]
    """Numbers of the annotations with labels that no window that is taken has."""


def label_windows(annotations: Sequence[Annotation], *, duration_s: float, settings: WindowSettings) -> LabelledWindows:
    """The windows over a recording with their labels.

    A window of length w has the labels of an annotation of length a where both have at least `min_overlap` of min(w, a)
    in common. One that annotations reach into by less, and that has no label, is neither of a class nor background.

    ``around``: an annotation up to w has a window with it in the middle, moved where it would reach beyond the
    recording; a longer one is tiled from its start, and the last tile ends where it ends. ``throughout``: the grid
    begins with the recording, and the last window ends with it; an annotation up to w that no window of the grid holds
    whole, and a longer one that none represents, has one with it in the middle beside.

    Args:
        annotations: In any order; those of one label may overlap.
        duration_s: Length of the recording, > 0.
        settings: Window, hop, overlap.

    >>> settings = WindowSettings(annotated="throughout")
    >>> found = label_windows([Annotation(1.2, 1.5, ("wren",))], duration_s=3.0, settings=settings)
    >>> found.starts_s, found.labels
    ([0.0, 1.0, 2.0], [(), ('wren',), ()])
    """
    length = min(settings.window_s, duration_s)
    hop = settings.window_s if settings.hop_s is None else settings.hop_s

    def place(annotation: Annotation) -> float:
        """Start of the window with an annotation in the middle."""
        return min(max((annotation.start_s + annotation.end_s - length) / 2, 0.0), duration_s - length)

    if settings.annotated == "throughout":
        starts = tile(0.0, duration_s, length=length, hop=hop)
        beside = [place(each) for each in annotations if each.labels and not _is_shown(each, starts, length, settings)]
        starts = np.concatenate([starts, beside])
    else:
        own = [
            [place(each)]
            if each.end_s - each.start_s <= length
            else tile(each.start_s, each.end_s, length=length, hop=hop)
            for each in annotations
            if each.labels
        ]
        starts = np.concatenate([np.empty(0), *own])
    starts = np.unique(np.round(starts, 6))

    labels: dict[int, set[str]] = {}
    partly: dict[int, set[str]] = {}
    shown: list[NDArray[np.int64]] = []
    for each in annotations:
        windows, common = _overlaps(each, starts, length)
        enough = _is_enough(each, common, length, settings) & bool(each.labels)
        for window in windows[enough].tolist():
            labels.setdefault(window, set()).update(each.labels)
        for window in windows[~enough & (common > MIN_COMMON_S)].tolist():
            partly.setdefault(window, set()).update(each.labels)
        shown.append(windows[enough])

    several = {window for window, names in labels.items() if len(names) > 1 and not settings.multi_label}
    touched = partly.keys() - labels.keys()
    taken = [window for window in range(len(starts)) if window not in several and window not in touched]
    lost = [
        number
        for number, (each, windows) in enumerate(zip(annotations, shown, strict=True))
        if each.labels and several.issuperset(windows.tolist())
    ]
    return LabelledWindows(
        starts_s=starts[taken].tolist(),
        length_s=length,
        labels=[tuple(sorted(labels.get(window, ()))) for window in taken],
        n_touched=len(touched),
        n_several=len(several),
        n_mixed=sum(not partly.get(window, set()) <= labels.get(window, set()) for window in taken),
        lost=lost,
    )


def tile(start_s: float, end_s: float, *, length: float, hop: float) -> NDArray[np.float64]:
    """Starts of windows from `start_s` on, `hop` apart, the last of which ends at `end_s`.

    >>> tile(0.0, 3.5, length=1.0, hop=1.0)
    array([0. , 1. , 2. , 2.5])
    """
    count = int((end_s - start_s - length + _ROUNDING_S) // hop) + 1
    starts = start_s + hop * np.arange(count, dtype=np.float64)
    left = end_s - (starts[-1] + length)
    return np.append(starts, end_s - length) if left > MIN_COMMON_S else starts


def _overlaps(
    annotation: Annotation, starts: NDArray[np.float64], length: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The windows, with ascending starts, that an annotation reaches into, and what each has in common with it."""
    first = np.searchsorted(starts, annotation.start_s - length, side="right")
    windows = np.arange(first, np.searchsorted(starts, annotation.end_s, side="left"))
    own = starts[windows]
    return windows, np.minimum(own + length, annotation.end_s) - np.maximum(own, annotation.start_s)


def _is_enough(
    annotation: Annotation, common: NDArray[np.float64], length: float, settings: WindowSettings
) -> NDArray[np.bool_]:
    least = settings.min_overlap * min(length, annotation.end_s - annotation.start_s)
    enough: NDArray[np.bool_] = common >= least - _ROUNDING_S
    return enough


def _is_shown(annotation: Annotation, starts: NDArray[np.float64], length: float, settings: WindowSettings) -> bool:
    """Whether a window holds an annotation whole, or represents one that is longer than it."""
    _, common = _overlaps(annotation, starts, length)
    own = annotation.end_s - annotation.start_s
    if own > length:
        return bool(_is_enough(annotation, common, length, settings).any())
    return bool((common >= own - _ROUNDING_S).any())

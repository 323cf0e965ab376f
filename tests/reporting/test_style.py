"""Figures show what classes are called, in any script, and keep to themselves what their library has to say."""

import io
import warnings
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from audiostride.reporting import style
from audiostride.reporting.class_figures import draw_confusion, draw_confusion_figure
from audiostride.reporting.figures import draw_accuracies
from audiostride.reporting.style import STYLE, choose_fonts, legend_below, new_panel, render

BIRD = "\u9ce5"  # which no font has that comes with matplotlib
PRIVATE = "\ue000"  # which DejaVu Sans lacks, and a font of mathematical signs has


def confusion_of(*names: str) -> pd.DataFrame:
    return pd.DataFrame(np.eye(len(names), dtype=int), index=list(names), columns=list(names))


@pytest.fixture(autouse=True)
def only_fonts_of_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = [entry for entry in style.fontManager.ttflist if "mpl-data" in entry.fname]
    assert len(fonts) > 10
    monkeypatch.setattr(style.fontManager, "ttflist", fonts)
    choose_fonts.cache_clear()
    style._say_missing.cache_clear()


def test_a_character_without_a_font_is_named_once_and_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert draw_confusion(confusion_of("a", f"{BIRD} {BIRD}"), format="png").startswith(b"\x89PNG")
            assert BIRD in draw_confusion(confusion_of("a", BIRD), format="svg").decode()
            draw_accuracies(pd.DataFrame({"name": [BIRD], "accuracy": [0.5], "low": [np.nan], "high": [np.nan],
                                          "majority": [0.5], "classic": [np.nan]}))  # fmt: skip
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"figures: no font that is installed has {BIRD}: in PNG files boxes stand in their place (not in the page); "
        "install one, such as Noto Sans"
    ]


@pytest.mark.parametrize("format", ["svg", "png"])
def test_what_is_drawn_lies_within_the_figure(format: str) -> None:
    with mpl.rc_context(STYLE):
        figure, panel = new_panel("A title", "x", "y")
        panel.plot([0, 1], [0, 1], label="a line")
        panel.set_yticks([0, 1], ["a class with a long name", "b"])
        legend_below(figure, panel)
    render(figure, format=format)
    figure.draw_without_rendering()  # boxes are those of the last drawing, which had the resolution of the file
    names = ["A title", "x", "y", "a class with a long name", "b", "a line"]
    found = figure.findobj(lambda each: isinstance(each, Text) and each.get_visible() and each.get_text() in names)
    texts = {text.get_text(): text.get_window_extent() for text in found}
    assert set(texts) == set(names)
    for name, box in texts.items():
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, name
    overlapping = [(one, other) for one, other in combinations(texts, 2) if texts[one].overlaps(texts[other])]
    assert overlapping == []
    assert texts["A title"].y0 >= panel.get_window_extent().y1


@pytest.mark.parametrize("first", ["italic", "normal"])
def test_another_font_that_has_the_character_is_taken(
    first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In whatever order faces are found: the slanted ones of that font lack it.
    faces = sorted(style.fontManager.ttflist, key=lambda entry: entry.style != first)
    monkeypatch.setattr(style.fontManager, "ttflist", faces)
    fonts, missing = choose_fonts(PRIVATE + BIRD)
    assert (len(fonts), missing) == (1, BIRD)
    assert fonts[0].startswith("STIX")
    assert choose_fonts(PRIVATE) == (fonts, "")
    figure = draw_confusion_figure(confusion_of("a", PRIVATE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = render(figure, format="png")
    assert capsys.readouterr().err == ""
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("DejaVu Sans", *fonts)}
    with mpl.rc_context(style.STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = io.BytesIO()
        draw_confusion_figure(confusion_of("a", PRIVATE)).savefig(before, format="png", dpi=144)
    assert not np.array_equal(imread(io.BytesIO(content)), imread(io.BytesIO(before.getvalue())))


def test_names_are_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["$x_1^2$", r"$\frac{1}{2}$", "$", "a_b^c", "nan", "_u", r"\alpha"]
    svg = draw_confusion(confusion_of(*names), format="svg").decode()
    for name in names:
        assert svg.count(f">{name}</text>") == 2, name
    assert draw_confusion(confusion_of(*names), format="png").startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


def test_other_warnings_of_a_figure_are_passed_on() -> None:
    figure = draw_confusion_figure(confusion_of("a", "b"))
    draw = figure.draw

    def warn_and_draw(*arguments: object) -> None:
        warnings.warn("look out", stacklevel=1)
        draw(*arguments)

    figure.draw = warn_and_draw  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="look out"):
        render(figure, format="png")

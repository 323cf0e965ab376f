import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import audiostride
from audiostride.errors import InputError
from audiostride.reporting import Report, read_run, report, write_report
from audiostride.reporting.figures import draw_map

MakeRun = Callable[..., Path]
VOID = {"meta", "link", "br", "img", "hr", "input"}
ODD = ['<b>&"', "a|b\\c", "$x$", "nan"]


class PageCheck(HTMLParser):
    """Walks a page and collects what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.headings: list[int] = []
        self.names: list[str] = []
        self.targets: set[str] = set()
        self.seen: dict[str, int] = {}
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag in self.open]
        if self.headings[:1] != [1] or self.headings.count(1) != 1:
            self.wrong.append(f"one h1 must come first, got {self.headings}")
        self.wrong += [
            f"h{lower} after h{upper}"
            for upper, lower in zip(self.headings, self.headings[1:], strict=False)
            if lower > upper + 1
        ]
        self.wrong += [f"the name {name} stands twice" for name in {*self.names} if self.names.count(name) > 1]
        self.wrong += [f"#{name} is nowhere" for name in self.targets - {*self.names}]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._needs_caption = True
        if tag == "caption":
            self._needs_caption = False

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" and not values.get("alt"):
            self.wrong.append("an img without alt")
        if values.get("role") in ("img", "region") and not values.get("aria-label"):
            self.wrong.append(f"a {values['role']} without a label")
        if tag == "th" and values.get("scope") not in ("col", "row"):
            self.wrong.append("a th without scope")
        if "id" in values:
            self.names.append(str(values["id"]))
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "srcset", "action", "data") and not re.match(
                r"#|data:", value or ""
            ):
                self.wrong.append(f"{tag} loads {value}")
            if name in ("href", "xlink:href") and (value or "").startswith("#"):
                self.targets.add(str(value)[1:])
            self.targets |= set(re.findall(r"url\(#([^)]+)\)", value or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self._needs_caption:
            self.wrong.append("a table without caption")
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes something else")


def check_page(text: str) -> PageCheck:
    found = PageCheck(text)
    assert found.wrong == []
    assert {"header", "nav", "main", "footer"} <= set(found.seen)
    assert not re.search(r"@import|<link rel=.stylesheet", text)
    assert re.findall(r"<script[^>]*>", text) == ["<script>"]  # its own, which loads nothing
    assert not re.search(r"fetch|import\(|XMLHttp|eval", text[text.index("<script>") :])
    # Names of languages are no addresses that a browser loads.
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"|<!--.*?-->', "", text, flags=re.DOTALL))
    assert re.search(r"prefers-color-scheme: dark", text)
    assert re.search(r"@media print", text)
    return found


@pytest.mark.parametrize(
    "page",
    [
        "<h1>a</h1><h3>b</h3>",
        "<h1>a</h1><img src='data:,'>",
        "<h1>a</h1><table><tr><td>1</table>",
        "<h1>a</h1><table><tbody></tbody></table>",
        "<h1>a</h1><a href='http://x.org'>x</a>",
        "<h1>a</h1><p id='x'></p><p id='x'></p>",
        "<h1>a</h1><a href='#gone'></a>",
        "<h2>a</h2>",
    ],
)
def test_the_check_finds_faults(page: str) -> None:
    assert PageCheck(page).wrong


SINGLE = ["accuracy", "per_class", "calibration", "mistakes", "modulations", "cutoffs", "units", "first_layer", "gains"]
SINGLE += ["multiply_adds", "summary"]


def test_a_run_on_two_classes_has_all_parts(make_run: MakeRun, tmp_path: Path) -> None:
    made = report(make_run(tmp_path / "run"))
    found = check_page(made.html)
    assert list(made.tables) == SINGLE
    n_mistakes = len(made.tables["mistakes"])
    assert found.seen["img"] == found.seen["audio"] == n_mistakes + 2 > 2, "the surest clip of each class too"
    assert "95 % interval" in made.html
    assert re.search(r"ROC curve of detecting tone; the area under it is 0\.\d{3}", made.html)
    assert "expected calibration error" in made.html
    assert "Both agree: the largest difference of all layers and axes is 0.000" in made.html
    assert "The support vector machine is as good as this network or better: kind. Train longer, or look" in made.html
    limits = "<span>7800 Hz</span><span>60 Hz</span><span>0.5 s</span><i hidden></i></div>"
    assert re.search(f"{limits}<audio controls preload=.none. src=.data:audio/flac", made.html)
    (cutoffs,) = (
        block for section in made.sections for block in section.blocks if getattr(block, "name", "") == "cutoffs"
    )
    assert (
        cutoffs.shown["stride before"].tolist() == ["2.00", "2.00", "3.00", "1.00"] == cutoffs.shown["stride"].tolist()
    )
    assert cutoffs.shown["size"].tolist()[:2] == ["100 → 50", "64 → 32"]
    for fact in ("train 100, test 30", "a CPU, 1 thread", "audiostride train", "torch 2.14", "8 steps"):
        assert fact in made.html, fact
    assert made.headline.startswith("kind: ")
    assert re.match(
        r"a support vector machine on log-mel statistics has [\d.]+ %, as much or more, so that", made.beside
    )
    assert made.beside.endswith("always the most frequent class would have 50.0 %")
    assert made.beside.replace(" %", "\u00a0%")[1:] in made.html
    assert re.search(r"% correct \(\d+ to \d+\) on 30 clips, 2 classes; layer 1 passes modulations up to 25.0 Hz and "
                     r"0.25 cycles/mel$", made.headline)  # fmt: skip


def test_a_trained_run_has_all_parts(trained_run: Path) -> None:
    made = report(trained_run)
    check_page(made.html)
    assert set(SINGLE) - {"mistakes"} <= set(made.tables)
    assert check_page((trained_run / "report.html").read_text(encoding="utf-8")).seen["svg"] >= 10
    predictions = pd.read_csv(trained_run / "predictions_test.csv")
    assert predictions.columns.tolist() == [
        *["line", "path", "start_s", "duration_s", "true", "predicted"],
        *["p:noise", "p:tone"],
    ]
    assert (predictions["true"] == predictions["predicted"]).mean() == pytest.approx(
        made.tables["accuracy"]["accuracy"].item()
    )
    assert predictions[["p:noise", "p:tone"]].sum(axis=1).sub(1).abs().max() < 1e-5


def test_a_run_on_several_tasks_has_the_parts_of_each(make_run: MakeRun, tmp_path: Path) -> None:
    made = report(make_run(tmp_path / "run", tasks={"kind": ["noise", "tone"], "pitch": ["1", "2", "3"]}))
    found = check_page(made.html)
    assert {f"{name}_{task}" for name in ("per_class", "calibration", "modulations")
            for task in ("kind", "pitch")} <= {*made.tables}  # fmt: skip
    assert made.tables["modulations_pitch"]["class"].sort_values().tolist() == ["1", "2", "3"]
    assert made.html.count("Confusion matrix of run") == 2
    assert made.html.count("ROC curve of") == 1
    assert found.headings.count(3) == 2 + 2, "of classes, and of what they sound like"
    assert made.headline.startswith("2 tasks: ")
    assert "(kind " in made.headline


@pytest.mark.parametrize("pooling", ["strided", "spectral"])
def test_runs_without_learned_strides_leave_them_out(make_run: MakeRun, tmp_path: Path, pooling: str) -> None:
    made = report(make_run(tmp_path / "run", pooling=pooling))
    check_page(made.html)
    assert not {"strides", "first_layer"} & {*made.tables}
    assert ("gains" in made.tables) == (pooling == "spectral")
    assert ("folds" in made.headline) == ("no pooling layer whose gain" in made.html) == (pooling == "strided")


def test_several_runs_show_their_spread(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"seed{seed}", seed=seed) for seed in (0, 1)]
    runs += [make_run(tmp_path / "other_start", seed=2, strides=((1, 3), (2, 2)))]
    runs += [make_run(tmp_path / "strided", pooling="strided")]
    made = report(runs)
    check_page(made.html)
    assert re.match(r"kind: diffstride mixed \d.* % \(sd \d.*, 3 runs\); strided \d", made.headline)
    strides = made.tables["strides"]
    assert set(strides["run"]) == {"seed0", "seed1", "other_start"}
    assert strides.query("layer == 1 and axis == 'mel'")["start"].tolist() == [2, 2, 3]
    # The history of these runs ends 0.1 above: what counts is the stride of the model that was kept.
    assert strides["end"].tolist() == strides["start"].tolist()
    for name in ("stride_spread_time", "stride_spread_mel"):
        assert f"{name}.svg" in made.files()
    assert "Starting and final stride" in made.html
    assert "the tick where it was before training" not in made.html  # they began in different places
    assert made.tables["runs"]["run"].tolist() == ["seed0", "seed1", "other_start", "strided"]


def test_runs_of_other_tasks_or_widths_are_not_averaged(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "run")
    second = make_run(tmp_path / "b" / "run", tasks={"pitch": ["1", "2", "3"]})
    made = report([first, second])
    assert made.summary["pooling"].unique().tolist() == ["kind", "pitch"]
    assert {"a/run", "b/run"} <= {*made.tables["runs"]["run"]}
    wide = make_run(tmp_path / "a" / "wide")
    text = (wide / "config.yaml").read_text()
    (wide / "config.yaml").write_text(text.replace("width: 1.0", "width: 2.0"))
    summary = report([first, wide]).summary
    assert summary["pooling"].unique().tolist() == ["diffstride mixed, width 1.0", "diffstride mixed, width 2.0"]
    other = make_run(tmp_path / "c" / "run")
    summary = report([first, other]).summary
    assert summary["pooling"].unique().tolist() == ["diffstride mixed, a/manifest", "diffstride mixed, c/manifest"]


def test_runs_of_one_label_column_are_named_by_their_sets(make_run: MakeRun, tmp_path: Path) -> None:
    runs = []
    for name in ("birds", "scenes"):
        runs.append(make_run(tmp_path / name / "run", tasks={"label": ["no", "yes"]}))
        settings = (runs[-1] / "config.yaml").read_text(encoding="utf-8")
        (runs[-1] / "config.yaml").write_text(
            settings.replace(str(tmp_path / name / "manifest.csv"), f"data/{name}/manifest.csv"), encoding="utf-8"
        )
    made = report(runs)
    assert made.summary["pooling"].unique().tolist() == ["birds", "scenes"]


def test_the_map_has_every_layer_and_the_papers_first_ones(make_run: MakeRun, tmp_path: Path) -> None:
    summary = report(make_run(tmp_path / "run")).summary
    figure = draw_map(summary, {"a": (25.0, 0.25), "b": (26.0, 0.245), "c": (38.0, 0.23)})
    panel = figure.axes[0]
    ours, papers = panel.get_lines()
    wide = summary.pivot_table(index="layer", columns="axis", values="cutoff")
    assert ours.get_xdata().tolist() == wide["time"].tolist()
    assert ours.get_ydata().tolist() == wide["mel"].tolist()
    assert list(papers.get_xdata()) == [25.0, 26.0, 38.0]
    assert [text.get_text() for text in panel.texts] == ["1", "2", "a, b", "c"], "near ones share a name"


def test_old_runs_and_runs_without_a_test_say_what_to_do(make_run: MakeRun, tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", predicted=False)
    page = check_page(report(old).html)
    assert "img" not in page.seen
    assert f"audiostride evaluate {old}" in report(old).html
    assert "Confusion matrix of run" in report(old).html
    untested = make_run(tmp_path / "untested", tested=False)
    made = report(untested)
    check_page(made.html)
    assert f"has no test results yet: audiostride evaluate {untested}" in made.html
    assert made.headline.startswith("kind: 75.0 % on validation clips; not tested yet")


def test_clips_that_are_gone_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    count = len(report(run).tables["mistakes"])
    for path in tmp_path.glob("audio*.wav"):
        path.unlink()
    made = report(run)
    check_page(made.html)
    assert f"{count} of these {count} clips can no longer be read" in made.html
    assert len(made.tables["mistakes"]) == count


def test_odd_names_are_text(make_run: MakeRun, tmp_path: Path) -> None:
    made = report(make_run(tmp_path / "<i>run", tasks={"kind<": ODD}))
    check_page(made.html)
    assert "<b>" not in made.html
    assert "<i>" not in made.html
    assert "&lt;b&gt;&amp;&#34;" in made.html
    assert made.tables["per_class"]["class"].tolist() == ODD
    assert set(made.tables["mistakes"]["true"]) <= {*ODD}
    markdown = made.files()["per_class.md"].decode()
    assert "| &lt;b>&" in markdown
    assert "a\\|b\\\\c" in markdown
    assert ">$x$</text>" in made.html


def test_tables_and_figures_are_files_too(make_run: MakeRun, tmp_path: Path, run_command, capsys) -> None:
    run, page = make_run(tmp_path / "run"), tmp_path / "page.html"
    assert run_command("report", run, "-o", page) == 0
    shown = capsys.readouterr().out
    assert "layer 1 passes" in shown
    assert str(tmp_path / "page_files") in shown
    check_page(page.read_text(encoding="utf-8"))
    files = {path.name for path in (tmp_path / "page_files").iterdir()}
    tables = {f"{name}.{suffix}" for name in SINGLE for suffix in ("csv", "md")}
    drawings = {f"{name}_{axis}" for name in ("cutoffs", "gain", "strides") for axis in ("time", "mel")}
    drawings |= {"history_loss", "history_accuracy", "confusion", "reliability", "roc"}
    assert files >= tables | {f"{name}.{suffix}" for name in drawings for suffix in ("svg", "png")}
    assert all((tmp_path / "page_files" / name).read_bytes().startswith(b"\x89PNG") for name in files if "png" in name)
    assert all(b"<svg" in (tmp_path / "page_files" / name).read_bytes() for name in files if name.endswith("svg"))
    cutoffs = pd.read_csv(tmp_path / "page_files" / "cutoffs.csv")
    pd.testing.assert_frame_equal(cutoffs, pd.read_csv(tmp_path / "page_cutoffs.csv"))
    assert len(pd.read_csv(tmp_path / "page_files" / "gains.csv")) > 100
    (tmp_path / "page_files" / "gains.csv").write_text("old")
    write_report([run], page)  # replaces its own, and its files with it
    assert {path.name for path in (tmp_path / "page_files").iterdir()} == files
    assert len(pd.read_csv(tmp_path / "page_files" / "gains.csv")) > 100


def test_write_report_writes_a_page_and_its_cutoffs(make_run: MakeRun, tmp_path: Path) -> None:
    summary = write_report([make_run(tmp_path / "run")], tmp_path / "page.html")
    assert {path.name for path in tmp_path.glob("page*")} == {"page.html", "page_cutoffs.csv"}
    assert len(summary) == 4


def test_a_notebook_shows_the_page_in_a_frame(make_run: MakeRun, tmp_path: Path) -> None:
    made = audiostride.report([make_run(tmp_path / "run")])
    assert isinstance(made, Report)
    shown = made._repr_html_()
    assert shown.startswith("<iframe title=")
    assert shown.count("<") == 2  # the page stands in an attribute
    assert "Report('kind: " in repr(made)
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("damage", ["metrics.json", "history.csv", "predictions_test.csv", "config.yaml"])
def test_damaged_files_are_named(make_run: MakeRun, tmp_path: Path, run_command, capsys, damage: str) -> None:
    run = make_run(tmp_path / "run")
    (run / damage).write_text('{"a\n"b: [')
    assert run_command("report", run, "-o", tmp_path / "page.html") == 2
    assert str(run / damage) in capsys.readouterr().err
    assert not list(tmp_path.glob("page*"))


def test_bad_places_leave_nothing_half_written(make_run: MakeRun, tmp_path: Path, run_command, capsys) -> None:
    run = make_run(tmp_path / "run")
    assert run_command("report", run, "-o", tmp_path / "gone" / "page.html") == 2
    assert "a folder that exists" in capsys.readouterr().err
    (tmp_path / "folder.html").mkdir()
    assert run_command("report", run, "-o", tmp_path / "folder.html") == 2
    assert "must be a file" in capsys.readouterr().err
    (tmp_path / "manifest.csv").write_text("path,label\n")
    assert run_command("report", run, "-o", tmp_path / "manifest.csv") == 2
    assert "must be a new file or replace a page" in capsys.readouterr().err
    assert (tmp_path / "manifest.csv").read_text() == "path,label\n"
    (tmp_path / "page_files").write_text("in the way")
    assert run_command("report", run, "-o", tmp_path / "page.html") == 2
    assert "page_files cannot be written: File exists; choose another name" in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("page*")} == {"page_files"}
    (tmp_path / "page_files").unlink()
    (tmp_path / "page_files" / "gains.csv").mkdir(parents=True)
    (tmp_path / "page_files" / "mine.txt").write_text("")
    assert run_command("report", run, "-o", tmp_path / "page.html") == 2
    assert {path.name for path in tmp_path.glob("page*")} == {"page_files"}
    assert {path.name for path in (tmp_path / "page_files").iterdir()} == {"gains.csv", "mine.txt"}


def test_what_is_no_run_is_refused(make_run: MakeRun, tmp_path: Path, run_command, capsys) -> None:
    unfinished = make_run(tmp_path / "run", tested=False)
    (unfinished / "history.csv").unlink()
    for path in (tmp_path / "nowhere", unfinished):
        assert run_command("report", path, "-o", tmp_path / "page.html") == 2
        assert "must be a run folder with config.yaml and history.csv; 'audiostride train' writes one" in (
            capsys.readouterr().err
        )
    with pytest.raises(InputError, match="at least one run"):
        report([])
    assert not list(tmp_path.glob("page*"))


def test_sources_of_tasks(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", tasks={"kind": ["a", "b"], "pitch": ["1", "2"]}))
    assert run.manifests == dict.fromkeys(["kind", "pitch"], str(tmp_path / "manifest.csv"))
    assert run.source == str(tmp_path / "manifest.csv")

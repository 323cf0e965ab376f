"""Classifiers as a C99 header and as a page: the logits of PyTorch, by a compiler, by node and in a browser."""

import base64
import csv
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import soundfile
import torch
from examples import make_classifier, noise
from torch import nn

from audiostride import AudioClassifier, InputError
from audiostride.models.export import c_source, export_classifier, files
from audiostride.models.export.c_source import c_runner, find_compiler, place_maps, round_rows, to_c
from audiostride.models.export.parity import Runner, generate_clips, measure_parity
from audiostride.models.export.stages import Stage, StagedNetwork, split_stages
from audiostride.models.export.web_page import find_node, make_chirp, node_runner, to_html

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler is installed")
needs_node = pytest.mark.skipif(find_node() is None, reason="node is not installed")
needs_browser = pytest.mark.skipif(browser.PROGRAM is None, reason="no browser is installed")

# Every branch of the loops: strides and matrices, norm before the pooling and behind, both orders, an axis of one bin.
KINDS: list[dict[str, Any]] = [
    {},
    {"pool_after": "block"},
    {"pooling": "strided", "strides": ((3, 2), (2, 2)), "channels": (64, 64)},
    {"pooling": "spectral", "head_pooling": "both", "input_norm": "band"},
    {"strides": ((1, 1), (3, 2)), "channels": (8, 300), "head_pooling": "mean", "multi_label": ["word"]},
    {"window_s": 0.33, "sample_rate": 8000, "fmax_hz": 3900.0, "n_mels": 20, "hop_length": 56, "win_length": 160},
    {"strides": ((100, 64), (1, 1)), "channels": (16, 16), "size": "nominal", "max_stride": 100.0},
]


@pytest.mark.parametrize(("make", "load"), [
    pytest.param(to_c, c_runner, marks=needs_compiler), pytest.param(to_html, node_runner, marks=needs_node),
])  # fmt: skip
@pytest.mark.parametrize("settings", KINDS)
def test_logits_are_those_of_pytorch(
    settings: dict[str, Any], make: Callable[..., bytes], load: Callable[[bytes], Runner]
) -> None:
    model = make_classifier(**settings)
    windows = generate_clips(model.config)
    content = to_c(model, input="waveform") if make is to_c else make(model)
    found = measure_parity(model, windows, windows, load(content), generated=True)
    assert found.max_difference < 1e-3
    assert found.n_same_class == len(windows)


def test_kinds_take_every_branch() -> None:
    stages = [stage for settings in KINDS for stage in split_stages(make_classifier(**settings), format="c").stages]
    assert {(stage.matrix is None, stage.pools_taps, stage.norm_first) for stage in stages} == {
        (True, False, False), (False, True, False), (False, False, False), (False, False, True),
    }  # fmt: skip
    assert 1 in {stage.n_in for stage in stages}


@needs_compiler
@pytest.mark.parametrize("settings", [{}, {"pooling": "strided"}])
def test_c_takes_spectrograms_to_a_float_s_rounding(settings: dict[str, Any]) -> None:
    model = make_classifier(**settings)
    windows = generate_clips(model.config)
    run = c_runner(to_c(model, input="log-mel"))
    assert measure_parity(model, windows, model.frontend(windows), run, generated=True).max_difference < 1e-4


@needs_compiler
@pytest.mark.parametrize("settings", [{}, {"pooling": "strided"}, {"pool_after": "block"}])
def test_8_bit_weights_are_the_rounded_ones(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_classifier(**settings)
    inputs = model.frontend(generate_clips(model.config)).numpy()
    small = np.concatenate(c_runner(to_c(model, input="log-mel", int8=True))(inputs), axis=1)
    plain = np.concatenate(c_runner(to_c(model, input="log-mel"))(inputs), axis=1)

    def rounded(rows: np.ndarray) -> np.ndarray:
        whole, scale = round_rows(rows)
        assert np.abs(whole).max(axis=1).tolist() == [127] * len(rows)
        return whole * scale[:, None]

    def round_stage(stage: Stage) -> Stage:
        outputs = stage.kernel.reshape(-1, stage.channels_out).T
        kernel = np.ascontiguousarray(rounded(outputs).T).reshape(stage.kernel.shape)
        return replace(stage, kernel=kernel, matrix=None if stage.matrix is None else rounded(stage.matrix))

    def split_rounded(*given: Any, **more: Any) -> StagedNetwork:
        network = split_stages(*given, **more)
        return replace(network, stages=[round_stage(stage) for stage in network.stages], head=rounded(network.head))

    monkeypatch.setattr(c_source, "split_stages", split_rounded)
    expected = np.concatenate(c_runner(to_c(model, input="log-mel"))(inputs), axis=1)
    np.testing.assert_allclose(small, expected, atol=1e-4)
    assert np.abs(plain - expected).max() > 1e-3, "what is compared is not the same"


def test_a_row_of_zeros_stays_that() -> None:
    whole, scale = round_rows(np.float32([[0, 0], [-2, 1]]))
    assert whole.tolist() == [[0, 0], [-127, 64]]
    assert scale.tolist() == pytest.approx([1, 2 / 127])


@pytest.mark.parametrize("settings", KINDS)
def test_no_map_lies_where_another_is_read(settings: dict[str, Any]) -> None:
    stages = split_stages(make_classifier(**settings), format="c").stages
    places, end = place_maps(stages)
    assert places[0][0] == 0
    for stage, (begin, to) in zip(stages, places, strict=True):
        apart = to + stage.size_out <= begin or begin + stage.size_in <= to
        line_by_line = stage.axis == "mel" and to == begin and stage.size_out <= stage.size_in
        assert apart or line_by_line
        assert max(begin + stage.size_in, to + stage.size_out) <= end
    assert all(before[1] == after[0] for before, after in pairwise(places))


@needs_compiler
def test_a_program_in_c_says_what_predict_says(tmp_path: Path) -> None:
    model = make_classifier(multi_label=["word"])
    export_classifier(model, tmp_path / "model.h")
    samples = (noise(1, 40000)[0] * torch.linspace(0, 0.3, 40000)).numpy()
    soundfile.write(str(tmp_path / "sound.wav"), samples, 16000, subtype="PCM_16")
    source = Path(__file__).parents[3] / "recipes" / "run_c.c"
    warnings = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    program = [find_compiler(), *warnings, f"-I{tmp_path}", source, "-o", tmp_path / "run", "-lm"]
    subprocess.run(program, check=True)
    shown = subprocess.run([tmp_path / "run", tmp_path / "sound.wav"], capture_output=True, text=True, check=True)
    rows = [re.fullmatch(r"(\d+)\.00 s\t(\w+)\t(\w+)\t([\d.]+)", line) for line in shown.stdout.splitlines()]
    found = {(row[1], row[2], row[3]): float(row[4]) for row in rows if row is not None}
    assert len(found) == len(rows) > 3
    table = model.predict(tmp_path / "sound.wav", threshold=0.5)
    expected = {(f"{row.start_s:.0f}", row.task, row.label): row.score for row in table.itertuples()}
    assert found == pytest.approx(expected, abs=2e-3)
    wrong = tmp_path / "slow.wav"
    soundfile.write(str(wrong), samples, 8000, subtype="PCM_16")
    refused = subprocess.run([tmp_path / "run", wrong], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "16000 Hz" in refused.stderr


@needs_compiler
def test_names_of_classes_arrive_in_c_as_they_are(tmp_path: Path) -> None:
    names = ['say "hi"', "back\\slash", "tab\tand\x01bell", "Étang d'Olé", "??=trigraph", "%s", "\\u0001"]
    export_classifier(make_classifier(tasks={"a b": names}), tmp_path / "model.h")
    (tmp_path / "run.c").write_text(
        '#include "model.h"\n#include <stdio.h>\nint main(void) { fputs(audiostride_tasks[0].name, stdout); '
        "for (int k = 0; k < AUDIOSTRIDE_LOGITS; k++) { putchar(10); fputs(audiostride_labels[k], stdout); } "
        "return 0; }\n"
    )
    for options in (["-x", "c", "-std=c99"], ["-x", "c++", "-std=c++17"]):
        program = [find_compiler(), *options, tmp_path / "run.c", "-o", tmp_path / "run", "-lm"]
        if subprocess.run(program, capture_output=True).returncode != 0 and "c++" in options:
            continue  # a compiler of C alone
        shown = subprocess.run([tmp_path / "run"], capture_output=True, check=True)
        assert shown.stdout.decode().split("\n") == ["a b", *names]


@needs_compiler
def test_the_memory_that_c_asks_for_is_all_it_touches(tmp_path: Path) -> None:
    export_classifier(make_classifier(**KINDS[3]), tmp_path / "model.h")
    (tmp_path / "run.c").write_text(
        '#include "model.h"\n#include <stdlib.h>\n'
        "int main(void) { float *work = malloc(4 * AUDIOSTRIDE_WORK), *input = calloc(AUDIOSTRIDE_INPUT, 4);\n"
        "float *logits = malloc(4 * AUDIOSTRIDE_LOGITS); memset(work, 255, 4 * AUDIOSTRIDE_WORK);\n"
        "audiostride_classify(input, logits, work); for (int k = 0; k < AUDIOSTRIDE_LOGITS; k++)\n"
        "if (!(logits[k] - logits[k] == 0)) return 3; free(work); free(input); free(logits); return 0; }\n"
    )
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    made = subprocess.run(
        [find_compiler(), "-std=c99", *checks, tmp_path / "run.c", "-o", tmp_path / "run", "-lm"], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("the compiler has no sanitizers")
    done = subprocess.run([tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["m.h", "m.html"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "bcresnet"}, r"--format \w+ must be given a model with the encoder separable, got bcresnet"),
        ({"frontend": "pcen"}, r"--format \w+ must be given a model with the frontend log-mel, got pcen"),
    ],
)
def test_networks_without_a_small_form_go_to_onnx(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message + r"; export it as ONNX \(-o model\.onnx\)"):
        export_classifier(make_classifier(**settings), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = make_classifier()
    with torch.no_grad():
        next(module for module in model.modules() if isinstance(module, nn.Linear)).weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="all weights must be finite"):
        export_classifier(model, tmp_path / "m.h")


def test_without_their_programs_files_are_written_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "find_compiler", lambda: None)
    monkeypatch.setattr(files, "find_node", lambda: None)
    for name in ("m.h", "m.html"):
        found = export_classifier(make_classifier(), tmp_path / name)
        assert (found.parity, found.latencies) == (None, [])
        assert found.path.stat().st_size == found.n_bytes
    with pytest.raises(InputError, match="--int8 must be compared with float32, for which C takes a compiler"):
        export_classifier(make_classifier(), tmp_path / "m8.h", int8=True)
    assert not (tmp_path / "m8.h").exists()


@needs_node
def test_a_page_refuses_spectrograms_and_int8(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a page hears waveforms, got input log-mel"):
        export_classifier(make_classifier(), tmp_path / "m.html", input="log-mel")
    with pytest.raises(InputError, match="int8 must be given with ONNX or C, got html"):
        export_classifier(make_classifier(), tmp_path / "m.html", int8=True)


def test_the_chirp_rises_to_a_quarter_of_the_rate() -> None:
    spectrum = np.abs(np.fft.rfft(make_chirp(16000)[-1600:] * np.hanning(1600)))
    assert spectrum.argmax() * 10 == pytest.approx(16000 / 4, rel=0.06)


def loud_and_soft() -> torch.Tensor:
    """Noise whose level and colour change, 4 s and a bit."""
    steady = noise(1, 70000)[0] * torch.linspace(0, 30, 70000).sin().abs() ** 3 / 4
    return steady + 0.2 * torch.sin(torch.linspace(0, 300, 70000) ** 2) * torch.linspace(0, 9, 70000).cos().clamp(min=0)


def open_recording(page: browser.Browser, file: Path) -> Any:
    """Give a page a file as a person would, and wait for what it shows."""
    data = base64.b64encode(file.read_bytes()).decode()
    return page.run(
        f"""(async () => {{
        const bytes = Uint8Array.from(atob("{data}"), sign => sign.charCodeAt(0));
        await openFiles([new File([bytes], "{file.name}")]);
        return {{ error: $("error").hidden ? "" : $("error").textContent, name: $("name").textContent,
          clip: $("clip").textContent, rows: recording && recording.rows.map(row => [...row]),
          listed: $("events").rows.length, raven: recording && ravenTable(), csv: recording && csvTable() }};
        }})()"""
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioClassifier, Path]:
    """A classifier whose classes are told apart, and its page."""
    model = make_classifier(tasks={"word": ["no", "a,<b>", 'say "hi"'], "pitch": ["60", "61"]})
    with torch.no_grad():
        for head, logits in zip(model.heads, model(loud_and_soft().unfold(0, 16000, 8000)).values(), strict=True):
            head.weight.mul_(4)
            head.bias.copy_(4 * (head.bias - logits.mean(0)))
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(to_html(model))
    return model, path


@needs_browser
def test_a_page_finds_the_events_that_predict_finds(shown: tuple[AudioClassifier, Path], tmp_path: Path) -> None:
    model, path = shown
    soundfile.write(str(tmp_path / "sound.wav"), loud_and_soft().numpy(), 16000, subtype="PCM_16")
    with browser.Browser(tmp_path / "profile") as page:
        page.open(path)
        first = open_recording(page, tmp_path / "sound.wav")
        (tmp_path / "no.wav").write_bytes(b"no sound")
        broken = open_recording(page, tmp_path / "no.wav")
        page.run("$('run').value = '2'; $('threshold').value = '0.6'; listEvents()")
        second = page.run("csvTable()")
        assert (page.problems, page.requests) == ([], [])
    assert (first["error"], first["name"]) == ("", "sound.wav")
    assert "no.wav cannot be decoded by this browser; save it as WAV, FLAC or MP3" in broken["error"]
    scores = model.predict(tmp_path / "sound.wav", hop_s=0.5, all_scores=True)
    columns = [f"word:{name}" for name in model.config.tasks["word"]] + ["pitch:60", "pitch:61"]
    # Browsers read a positive sample of 16 bits as x / 32767: up to a step off.
    np.testing.assert_allclose(np.array(first["rows"]), scores[columns].to_numpy(), atol=1e-2)
    for table, more, least in ((first["csv"], {}, 4), (second, {"threshold": 0.6, "min_windows": 2}, 1)):
        expected = model.predict(tmp_path / "sound.wav", events=True, hop_s=0.5, **more)
        rows = list(csv.reader(table.splitlines()))
        assert rows[0] == ["path", "start_s", "end_s", "task", "label", "score"]
        ours = sorted((float(row[1]), float(row[2]), row[3], row[4]) for row in rows[1:])
        assert ours == sorted((row.start_s, row.end_s, row.task, row.label) for row in expected.itertuples())
        assert len(ours) >= least
    assert first["listed"] == len(first["csv"].splitlines()) - 1
    raven = [line.split("\t") for line in first["raven"].splitlines()]
    assert raven[0][3:7] == ["Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    assert {len(row) for row in raven} == {len(raven[0])}
    clip = model.predict(tmp_path / "sound.wav", per_clip=True, hop_s=0.5)
    for row in clip.itertuples():
        score = re.search(rf"{row.task}: {re.escape(row.label)} \(([\d.]+)\)", first["clip"])
        assert score is not None
        assert float(score[1]) == pytest.approx(row.score, abs=1e-2)


@needs_browser
def test_a_page_hears_a_microphone_and_shows_what_it_heard(shown: tuple[AudioClassifier, Path], tmp_path: Path) -> None:
    with browser.Browser(tmp_path / "profile") as page:
        page.open(shown[1])
        live = page.run(
            "(async () => { await listen(); for (let i = 0; i < 200 && !$('live').children.length; i++) "
            "await new Promise(done => setTimeout(done, 50)); "
            "return [$('live').children.length, $('error').hidden]; })()"
        )
        assert live == [5, True], "a bar for each class"
        heard = page.run("(async () => { await listen(); return [recording.name, recording.samples.length]; })()")
        assert heard[0] == "microphone.wav"
        assert heard[1] > 0
        assert (page.problems, page.requests) == ([], [])


@needs_browser
def test_a_page_says_when_a_browser_computes_something_else(
    shown: tuple[AudioClassifier, Path], tmp_path: Path
) -> None:
    text = shown[1].read_text(encoding="utf-8")
    numbers = re.search(r'"expected": \[([^,]+),', text)
    assert numbers is not None
    wrong = tmp_path / "wrong.html"
    wrong.write_text(text.replace(numbers[1], str(float(numbers[1]) + 0.01), 1), encoding="utf-8")
    with browser.Browser(tmp_path / "profile") as page:
        page.open(shown[1])
        assert page.run("$('error').hidden") is True
        assert page.run("checkItself()") < 1e-3
        page.open(wrong)
        assert "This browser does not compute what the classifier does" in page.run("$('error').textContent")


def test_the_numbers_of_a_page_cannot_end_their_element(shown: tuple[AudioClassifier, Path]) -> None:
    text = shown[1].read_text(encoding="utf-8")
    found = re.search(r'<script id="network" type="application/json">(.*?)</script>', text, re.S)
    assert found is not None
    assert "<" not in found[1]
    assert json.loads(found[1])["tasks"][0]["classes"] == ["no", "a,<b>", 'say "hi"']
    assert "a,&lt;b&gt;" in text

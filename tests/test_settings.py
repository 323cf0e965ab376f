"""Every field of every class of settings, broken in every way that its declaration knows."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml

from audiostride import AudioClassifier, ClassifierConfig, InputError
from audiostride.checks import Range
from audiostride.inference.settings import PredictionSettings
from audiostride.models import save_classifier
from audiostride.strides.pooling_config import PoolingConfig
from audiostride.training.augmentation.drawing import AugmentationConfig
from audiostride.training.config import TrainConfig
from audiostride.training.run import train
from audiostride.training.tasks import check_task_names

# Every class of settings, with as little as it can be made of.
LEAST: dict[Any, dict[str, Any]] = {
    TrainConfig: {"out": "o", "manifest": "m"},
    ClassifierConfig: {"tasks": {"word": ["no", "yes"]}},
    PoolingConfig: {},
    AugmentationConfig: {},
    PredictionSettings: {"granularity": "event"},
}


def declarations(settings: Any) -> dict[str, Any]:
    """What each field is declared to be."""
    return get_type_hints(settings, include_extras=True)


def parts_of(declared: Any) -> tuple[Any, Range, bool]:
    """The type of a declaration, its range, and whether None is one of its values."""
    optional = NoneType in get_args(declared)
    if optional:
        declared = next(part for part in get_args(declared) if part is not NoneType)
    if get_origin(declared) is Annotated:
        return (*get_args(declared), optional)
    return declared, Range(), optional


def bad_values(declared: Any) -> list[Any]:
    """Values that a declaration does not allow: of other types, not numbers, outside its range, and parts like that."""
    kind, range_, optional = parts_of(declared)
    origin = get_origin(kind)
    found: list[Any] = [] if optional else [None]
    found += [{"a": 1}, object(), b"text"] if origin is not dict else ["text", ["a"], {5: 1}]
    if kind in (int, float):
        found += ["fast", "1", True, np.True_, math.nan, math.inf, -math.inf, 10**400, 1j, [1], np.ones(2)]
        step = 1 if kind is int else 1e-3
        found += [] if range_.low == -math.inf else [range_.low - step] + ([] if range_.ends else [range_.low])
        found += [] if range_.high == math.inf else [range_.high + step] + ([] if range_.ends else [range_.high])
    if kind is int:
        found += [2.5, np.float32(2.5), 2**63, -(2**64)]
    elif kind is bool:
        found += ["no", "true", 0, 1, 1.0]
    elif kind is str:
        found += [5, True, ["a"], 2.5]
    elif origin is Literal:
        found += ["nothing", "", 32, True, ["block"]]
    elif origin in (Sequence, list):
        found += [5, "text", True] + [[value] for value in bad_values(get_args(kind)[0])]
    elif origin is dict:
        found += [{"word": value} for value in (5, "text", None, True)]
    return found


FIELDS = [(settings, name) for settings in LEAST for name in declarations(settings)]


def test_all_fields_are_found() -> None:
    assert {settings: len(fields(settings)) for settings in LEAST} == {
        TrainConfig: 82, ClassifierConfig: 25, PoolingConfig: 7, AugmentationConfig: 9, PredictionSettings: 12,
    }  # fmt: skip
    assert len(FIELDS) == 135


@pytest.mark.parametrize(("settings", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_broken_fields_are_refused_with_their_name(settings: Any, name: str) -> None:
    least = LEAST[settings]
    settings(**least)
    values = bad_values(declarations(settings)[name])
    assert len(values) >= 5
    for value in values:
        with pytest.raises(InputError, match=name) as caught:
            settings(**{**least, name: value})
        assert "must" in str(caught.value), value


@pytest.mark.parametrize("value", [4, np.int64(4), np.uint8(4), 4.0, np.float32(4), torch.tensor(4)], ids=repr)
def test_whole_numbers_of_any_kind_become_those_of_python(value: Any) -> None:
    for config, name in ((TrainConfig(out="o", manifest="m", batch_size=value), "batch_size"),
                         (ClassifierConfig(tasks={"word": ["no", "yes"]}, n_mels=value), "n_mels")):  # fmt: skip
        assert type(getattr(config, name)) is int
        assert getattr(config, name) == 4


def test_arrays_and_paths_become_lists_and_text() -> None:
    config = TrainConfig(
        out=Path("o"),  # type: ignore[arg-type]
        manifest="m",
        lr=np.float64(0.5),
        channels=np.array([3, 4]),  # type: ignore[arg-type]
        strides=np.array([[2, 1.5], [1, 1]]),  # type: ignore[arg-type]
    )
    assert (config.out, config.channels, config.strides) == ("o", [3, 4], [[2.0, 1.5], [1.0, 1.0]])
    assert type(config.lr) is float
    assert yaml.safe_load(yaml.safe_dump(config.to_dict())) == config.to_dict()
    model = ClassifierConfig(tasks={"word": ["no", "yes"]}, channels=np.array([3]), strides=np.array([[2, 1]]))  # type: ignore[arg-type]
    assert (model.channels, model.strides) == ((3,), ((2.0, 1.0),))
    json.dumps(model.to_dict())


def test_classes_may_have_numbers_for_names() -> None:
    assert ClassifierConfig(tasks={"pitch": [60, 61]}).tasks == {"pitch": ["60", "61"]}  # type: ignore[list-item]


def test_values_at_the_ends_of_their_ranges_are_taken() -> None:
    assert AugmentationConfig(noise_prob=1, gain_db=0, mel_mask_bands=1).noise_prob == 1
    assert TrainConfig(out="o", manifest="m", batch_size=2, stride_lr=0, seed=2**63 - 1).seed == 2**63 - 1
    assert PredictionSettings(granularity="event", threshold=1, merge_gap_s=0).threshold == 1


def test_a_model_has_the_settings_of_its_training() -> None:
    config = TrainConfig(out="o", manifest="m", size="paper", ramp_bins=3, width=0.5, encoder="resnet18")
    model = ClassifierConfig(tasks={"word": ["no", "yes"]}, **config.model_settings())
    shared = {entry.name for entry in fields(TrainConfig)} & {entry.name for entry in fields(ClassifierConfig)}
    assert set(config.model_settings()) == shared - {"multi_label"}, "which is of the tasks, as their classes are"
    assert shared == {
        "multi_label", "clip_score",
        "encoder", "pooling", "size", "strides", "channels", "width", "ramp_bins", "shared_strides", "pool_after",
        "head_pooling", "input_norm", "sample_rate", "window_s", "n_mels", "fmin_hz", "fmax_hz", "frontend",
    }  # fmt: skip
    assert (model.size, model.ramp_bins, model.width, model.encoder) == ("paper", 3, 0.5, "resnet18")


# Ten aliases of ten aliases: a page that stands for gigabytes.
LAUGHS = "out: o\na: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: o\nmanifest: m\nlr: fast\n", "lr must be a finite number > 0, got 'fast'"),
        ("out: o\nmanifest: m\nlr: .nan\n", "lr must be a finite number > 0, got nan"),
        ("out: o\nmanifest: m\nmax_steps: 2.5\n", "max_steps must be a whole number >= 1, got 2.5"),
        ("out: o\nmanifest: m\nprecision: 32\n", "precision must be one of auto, 32, .*, got 32"),
        ("out: o\nmanifest: m\nlabel: 2024-01-01\n", r"label must be text, got datetime\.date"),
        ("out: o\nmanifest: m\nstrides: [2, 2]\n", r"strides\[0\] must be a list, got 2"),
        ("out: o\nmanifest: m\nlabel: 2024-99-01\n", "must be YAML, but reading it failed"),
        ("manifest: m\n", "must have out, got none"),
        ("out: o\n1: 2\nx: y\n", "must hold known settings, got 1, x"),
        ("- out\n", "must hold known settings, got .not a table"),
        ("out: [\n", "must be YAML, but reading it failed"),
        ("out: o\nstrides: &a [*a]\n", "must be YAML, but reading it failed: it refers to itself"),
        ("&a out: o\nlr: *a\nb: &b {c: *b}\n", "must be YAML, but reading it failed: it refers to itself"),
        ("out: o\nout: p\n", "must be YAML, but reading it failed: these keys stand twice: out"),
        ("out: o\nlr: {b: 1, b: 2}\n", "must be YAML, but reading it failed: these keys stand twice: b"),
        (LAUGHS, "must be YAML, but reading it failed: it must have at most 100,000 values"),
        ("out: " + "x" * 2**18, "must be YAML, but reading it failed: it must have at most 262,144 bytes"),
        ("out: " + "[" * 5000, "must be YAML, but reading it failed: it is nested too deeply"),
        ("out: \xff\n", "must be YAML, but reading it failed: 'utf-8' codec"),
        ("out: a\x00\n", "must be YAML, but reading it failed: unacceptable character"),
        ("out: !!python/object:os.system x\n", "must be YAML, but reading it failed: could not determine a cons"),
        ("out: !!binary /\n", "must be YAML, but reading it failed"),
        ("? [out]\n: o\n", "must be YAML, but reading it failed"),
        ("", "must hold known settings, got .not a table"),
        ("out: o\nmanifest: m\non: 2\n", "must hold known settings, got True"),
        ("out: o\nmanifest: m\nlogger: 1:30\n", "logger must be a list, got 90"),
        ("out: o\nmanifest: m\nnoise: 1.5\n", "noise must be text, got 1.5"),
        ("out: o\nmanifest: m\ntask_weights: -1\n", "task_weights must be a list, got -1"),
        ("out: o\nmanifest: m\nmel_mask_bands: .inf\n", "mel_mask_bands must be a whole number, got inf"),
        ("out: o\nmanifest: m\nworkers: [1, 2]\n", r"workers must be a whole number >= 0, got \[1, 2\]"),
    ],
)
def test_a_damaged_configuration_is_refused_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_models_of_version_0_1_0_with_other_sizes_are_named() -> None:
    values = ClassifierConfig(tasks={"word": ["no", "yes"]}).to_dict()
    assert values["size_multiple"] == 1  # what their checksums are made of
    assert ClassifierConfig.from_dict(values).to_dict() == values
    with pytest.raises(InputError, match=r"size_multiple must be 1 since version 0\.2\.0, got 4"):
        ClassifierConfig.from_dict({**values, "size_multiple": 4})
    with pytest.raises(InputError, match="window_s must hold one sample or more at 16000 Hz, got 1e-05"):
        ClassifierConfig.from_dict({**values, "window_s": 1e-5})


def test_aliases_of_a_configuration_that_end_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "out: o\nmanifest: m\nstrides:\n- &pair [2, 1]\n- *pair\n- *pair\n- *pair\n- *pair\n- *pair\n"
    )
    assert TrainConfig.load(tmp_path).strides == [[2, 1]] * 6


@pytest.mark.parametrize("door", ["config", "resume", "evaluate", "report"])
@pytest.mark.parametrize("text", ["a: &a [*a]\n", "lr: 1\nlr: 2\n", "[1]\n", "lr: \xff\n", LAUGHS])
def test_every_door_says_in_one_line_what_is_wrong_with_a_configuration(
    tmp_path: Path, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str], door: str, text: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes(text.encode("latin-1"))
    (run / "history.csv").touch()
    model = AudioClassifier(ClassifierConfig(tasks={"a": ["x", "y"]}, channels=(2,), strides=((4, 4),)))
    save_classifier(model, run / "model.safetensors")
    arguments = {
        "config": ["train", "--config", run / "config.yaml", "--out", tmp_path / "new"],
        "resume": ["train", "--out", run, "--resume"],
        "evaluate": ["evaluate", run],
        "report": ["report", run],
    }
    assert run_command(*arguments[door]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"audiostride: {run / 'config.yaml'} must ")
    assert shown.count("\n") == 1
    assert len(shown) < 1000
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a\\b",
        "a:b",
        "a\nb",
        "a\x00b",
        "a\u202eb",
        "a\udcff",
        "*",
        "a?",
        'a"',
        "<a>",
        "a|b",
        "x" * 201,
        "日" * 67,
    ],
)
def test_names_of_tasks_that_no_file_may_have_are_refused_at_the_start(name: str) -> None:
    config = TrainConfig(out="o", task=[f"{name}=m.csv:x", "b=m.csv:y"])  # of a run of before, which is read
    with pytest.raises(InputError, match=r"^train: names of tasks must be ones that files may have") as caught:
        train(config)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "a b", "a.b", "..", "CON", "Ünïcode", "日本語", "x" * 200])
def test_other_names_of_tasks_are_taken(name: str) -> None:
    config = TrainConfig(out="o", task=[f"{name}=m.csv:x", "b=m.csv:y"])
    check_task_names(config.tasks())
    assert config.tasks() == [name, "b"]


def test_names_of_tasks_must_differ_in_more_than_capitals() -> None:
    config = TrainConfig(out="o", task=["Call=m.csv:x", "b=m.csv:y", "call=m.csv:z"])
    with pytest.raises(InputError, match=r"different in more than capitals.*, got 'Call'; rename it"):
        train(config)


def test_the_label_of_a_single_task_names_no_file_and_may_be_anything() -> None:
    with pytest.raises(InputError, match=r"manifest .*none\.csv does not exist"):
        train(TrainConfig(out="o", manifest="none.csv", label="call/song"))

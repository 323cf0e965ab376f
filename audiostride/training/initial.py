"""Where a training starts from: new weights, or the encoder of a trained model with new heads."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from audiostride.audio.log_mel import analysis_lengths
from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig, load_classifier
from audiostride.models.config import BACKGROUND, LATER
from audiostride.strides.diffstride import diffstride_layers
from audiostride.training.config import TrainConfig

# In the run folder: a run goes on when the one that it started from is gone.
INITIAL = "initial.safetensors"


def load_initial(path: str | Path) -> AudioClassifier:
    """The classifier of a run folder or of a model file, to start from.

    Raises:
        InputError: There is none.
    """
    try:
        return load_classifier(path)
    except InputError as error:
        raise InputError(f"train: --init must be a trained run or its model.safetensors: {error}") from error


def take_initial(config: TrainConfig, *, resume: bool) -> tuple[TrainConfig, AudioClassifier | None]:
    """The settings of a run with those of the network of the model that it starts from, and this model.

    Args:
        config: The settings; without `init` they stay as they are, and there is no model.
        resume: Whether the run goes on, from the model that it has kept.

    Raises:
        InputError: No such model; settings that are not those from there.
    """
    if config.init is None:
        return config, None
    kept = Path(config.out) / INITIAL
    initial = load_initial(kept if resume and kept.is_file() else config.init)
    settings = initial_settings(initial)
    check_given(config.given_model_settings(), config.init, settings)
    return replace(config, **settings), initial


def network_settings(config: ClassifierConfig) -> dict[str, Any]:
    """The settings of a training that makes a network with this configuration."""
    values = LATER | config.to_dict()
    for name, length in (("win_ms", config.win_length), ("hop_ms", config.hop_length)):
        values[name] = 1000 * length / config.sample_rate
    return {name: values[name] for name in TrainConfig.model_setting_names()}


def initial_settings(model: AudioClassifier) -> dict[str, Any]:
    """What a model decides of the settings of a run that starts from it; strides are those that it has learned.

    >>> model = AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, channels=[4], strides=[[3, 2]]))
    >>> settings = initial_settings(model)
    >>> settings["strides"], settings["pooling"], settings["hop_ms"]
    ([[3.0, 2.0]], 'diffstride', 10.0)
    """
    settings = network_settings(model.config)
    if learned := diffstride_layers(model):
        settings["strides"] = [list(layer.stride_values()) for layer in learned]
    return settings


def check_given(given: Mapping[str, Any], init: str, settings: Mapping[str, Any]) -> None:
    """Raise unless settings that somebody gave are those of the model that the run starts from.

    Args:
        given: Some of its model's settings.
        init: Where the model is, for the message.
        settings: As `initial_settings` says.
    """
    others = [f"  {name}: {value}, there {settings[name]}" for name, value in given.items() if value != settings[name]]
    if others:
        raise InputError(
            f"train: with --init the settings of the network are those of {init}, but these were given otherwise:\n"
            + "\n".join(others)
            + "\nleave them out, or train without --init"
        )


def make_model(
    config: TrainConfig, tasks: dict[str, list[str]], initial: AudioClassifier | None
) -> tuple[AudioClassifier, list[str]]:
    """The classifier of a run as it is before the first step, and lines on what of it was there before.

    Args:
        config: The settings, those of the initial model where there is one.
        tasks: Class names of each task.
        initial: The model whose encoder it has, and whose heads where tasks have the same name and classes.

    Raises:
        InputError: Weights of the encoder have other shapes there.
    """
    named = [task for task, names in tasks.items() if BACKGROUND in names and task not in (config.multi_label or ())]
    background = BACKGROUND if named or config.background is not None else None
    notes = []
    if named and config.background is None:
        unreported = f"clips of class {BACKGROUND} are without any of the others; predictions do not report it"
        notes.append(f"{', '.join(named)}: {unreported}")
    settings = {**config.model_settings(), "multi_label": config.multi_label or (), "background_class": background}
    if initial is None:
        bands = {name: settings[name] for name in ("sample_rate", "n_mels", "fmin_hz", "fmax_hz")}
        lengths = analysis_lengths(win_ms=config.win_ms, hop_ms=config.hop_ms, **bands)
        return AudioClassifier(ClassifierConfig(tasks=tasks, **settings, **lengths)), notes
    model = AudioClassifier(replace(initial.config, tasks=tasks, **settings))
    own, there = model.state_dict(), initial.state_dict()
    taken = {name: tensor for name, tensor in there.items() if not name.startswith("heads.")}
    heads = []
    for number, (task, classes) in enumerate(tasks.items()):
        before = initial.config.tasks.get(task)
        alike = (task in initial.config.multi_label) == (task in model.config.multi_label)
        if before == classes and alike:
            place = f"heads.{list(initial.config.tasks).index(task)}."
            ends = [name.removeprefix(place) for name in there if name.startswith(place)]
            taken |= {f"heads.{number}.{end}": there[place + end] for end in ends}
            heads.append(f"{task} goes on with the head from there")
        else:
            other = "" if before is None else f", and not the {len(before)} from there"
            if before == classes:
                other = f", since clips have {'several' if task in model.config.multi_label else 'one'} here"
            heads.append(f"{task} has a new head, for {len(classes)} classes{other}")
    wrong = [
        f"  {name}: {_shape(own, name)}, there {_shape(taken, name)}"
        for name in {**own, **taken}
        if (name in taken or not name.startswith("heads.")) and _shape(own, name) != _shape(taken, name)
    ]
    if wrong:
        raise InputError(
            f"train: weights must have the shapes of those of --init {config.init}, but these differ:\n"
            + "\n".join(wrong)
        )
    model.load_state_dict(own | taken)
    frozen = ", whose encoder stays as it is" if config.freeze_encoder else ""
    return model, [*notes, f"starts from {config.init}{frozen}: {initial.extra_repr()}", "; ".join(heads)]


def _shape(tensors: Mapping[str, Any], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "none"


def encoder_parts(model: AudioClassifier) -> list[nn.Module]:
    """All of a classifier but its heads: what --freeze-encoder leaves as it is."""
    return [part for name, part in model.named_children() if name != "heads"]

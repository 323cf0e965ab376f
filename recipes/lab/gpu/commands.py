"""The command line on a GPU: whole trainings from stores, and predictions."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import dataloader

from audiostride import AudioClassifier, DiffStride2d, load_classifier
from audiostride.cli import main
from audiostride.models import save_classifier
from lab.gpu.part import RATE, Part, ratio, seconds_each
from lab.gpu.steps import VARIANTS, WIDTHS, make_model


def command_line(*arguments: object) -> None:
    """A command of audiostride, in this process.

    Raises:
        RuntimeError: It did not end well.
    """
    code = main([str(argument) for argument in arguments])
    if code:
        raise RuntimeError(f"audiostride {arguments[0]} ended with code {code}; see the log")


def measure_train(part: Part) -> None:
    """Whole trainings through the command line: five tasks from stores, read by worker processes."""
    n_steps, warm_up = part.size(250, 6), part.size(50, 2)
    workers = part.size(min(8, (os.cpu_count() or 2) // 2), 0)
    options = {
        "width": WIDTHS[part.smoke], "batch-size": part.size(256, 4), "max-steps": n_steps, "valid-every": n_steps,
        "workers": workers, "device": part.device.type,
    }  # fmt: skip
    add = part.table(
        f"`audiostride train`, five tasks from stores, batch {options['batch-size']}, {workers} workers, steps "
        f"{warm_up} to {n_steps}. Waiting is the share of the time in which the loop waits for a batch; the GPU waits "
        "less where the loop runs ahead of it (strided).",
        [
            "pooling",
            "steps/s",
            "ms per step",
            "waiting for data",
            "x step alone",
            "hours for 1 M steps",
            "maps changed",
        ],
    )
    alone = part.earlier("step").get("steps", {})
    if not alone:
        part.note("the step alone was not measured: the part step has not run")
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_stores(Path(folder), clips=part.size(64, 12))
        for variant in ("DiffStride mixed", "strided"):
            if part.left_s() < 12:
                part.note(f"{variant}: not reached in the time")
                continue
            run = Path(folder) / f"run {variant}"
            given = [f"--{name.replace('_', '-')}={value}" for name, value in {**options, **VARIANTS[variant]}.items()]
            with watched_training() as (steps, waits):
                command_line("train", "--task", *tasks, "--out", run, *given)
            first, last = steps[warm_up - 1], steps[n_steps - 1]
            step_s = (last - first) / (n_steps - warm_up)
            waited_s = sum(seconds for start, seconds in waits if first <= start < last)
            own = alone.get(f"{variant}, {'float32' if part.smoke else 'bf16-mixed'}", {}).get("seconds")
            add([
                variant, f"{1 / step_s:.2f}", f"{1e3 * step_s:.2f}", f"{100 * waited_s / (last - first):.1f} %",
                ratio(step_s, own), f"{1e6 * step_s / 3600:.1f}", size_changes(run),
            ])  # fmt: skip


def make_stores(folder: Path, *, clips: int) -> list[str]:
    """Stores of noise with clips as long as those of the paper's archives; its five tasks, two of them of the notes."""
    rng = np.random.default_rng(0)
    for name, seconds in {"tut": 10, "birds": 10, "nsynth": 4, "words": 1}.items():
        rows = ["path,label,split"]
        for number in range(clips):
            soundfile.write(str(folder / f"{name}{number}.wav"), 0.1 * rng.standard_normal(seconds * RATE), RATE)
            split = "train" if number >= 8 else ("valid", "test")[number % 2]
            rows.append(f"{name}{number}.wav,{'ab'[number // 2 % 2]},{split}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        command_line("prepare", folder / f"{name}.csv", "-o", folder / name)
    sources = {"scenes": "tut", "birds": "birds", "instrument": "nsynth", "pitch": "nsynth", "speech": "words"}
    return [f"{task}={folder / name}:label" for task, name in sources.items()]


@contextlib.contextmanager
def watched_training() -> Iterator[tuple[list[float], list[tuple[float, float]]]]:
    """When optimizer steps ended, and when and for how long a loader was waited for, whatever runs the loop."""
    steps: list[float] = []
    waits: list[tuple[float, float]] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(time.perf_counter()))
    plain = dataloader._BaseDataLoaderIter.__next__

    def timed(self: Any) -> Any:
        start = time.perf_counter()
        try:
            return plain(self)
        finally:
            waits.append((start, time.perf_counter() - start))

    dataloader._BaseDataLoaderIter.__next__ = timed  # type: ignore[method-assign]
    try:
        yield steps, waits
    finally:
        hook.remove()
        dataloader._BaseDataLoaderIter.__next__ = plain  # type: ignore[method-assign]


def size_changes(run: Path) -> str:
    """How often the strides of a run, as far as they were recorded, changed the size of a map: kernels are chosen anew
    then."""
    if not (run / "strides.csv").is_file():
        return "-"
    table = pd.read_csv(run / "strides.csv").drop_duplicates("step")
    model = load_classifier(run)
    layers = [module for module in model.modules() if isinstance(module, DiffStride2d)]
    seen = []
    for row in table.drop(columns="step").to_numpy():
        with torch.no_grad():
            for layer, pair in zip(layers, row.reshape(len(layers), -1), strict=True):
                layer.strides.copy_(torch.tensor(pair[: layer.strides.numel()]))
        seen.append(model.encoder.map_sizes(model.config.window_frames, model.config.n_mels))
    changed = sum(before != after for before, after in pairwise(seen))
    return f"{changed} times in {len(seen)} looks over {table['step'].max():.0f} steps"


def measure_infer(part: Part) -> None:
    """Windows per second of frozen models, and hours of audio per second of `predict`."""
    batch = part.size(256, 4)
    variants = ("strided", "DiffStride mixed", "spectral")
    models = {variant: make_model(variant, part).to(part.device).eval() for variant in variants}
    frozen = {variant: model.freeze() for variant, model in models.items()}
    windows = torch.randn(batch, RATE, device=part.device) / 8

    def classify(variant: str, *, bf16: bool) -> None:
        with torch.inference_mode(), torch.autocast(part.device.type, dtype=torch.bfloat16, enabled=bf16):
            frozen[variant](windows)

    add = part.table(
        f"Frozen models on windows of 1 s that lie on the device, batch {batch}.",
        ["pooling", "arithmetic", "windows/s", "time, x strided", "hours of audio per second"],
    )
    for bf16 in (False, True):
        tasks: dict[str, Callable[[], object]] = {each: partial(classify, each, bf16=bf16) for each in variants}
        for task in tasks.values():
            task()
        found = seconds_each(tasks, part)
        for variant, own_s in found.items():
            rate = batch / own_s
            how = "bf16" if bf16 else "float32"
            add([variant, how, f"{rate:.0f}", ratio(own_s, found["strided"]), f"{rate / 3600:.2f}"])
    measure_predict({variant: models[variant] for variant in variants[:2]}, part)


def measure_predict(models: dict[str, AudioClassifier], part: Part) -> None:
    """`predict` of recordings that lie in memory, and of files."""
    recordings, seconds = part.size(24, 2), part.size(600, 5)
    add = part.table(
        f"`predict`, {recordings} recordings of {seconds} s: arrays in memory, and WAV files of 16 kHz.",
        ["pooling", "from", "seconds", "time, x strided", "hours of audio per second"],
    )
    rng = np.random.default_rng(0)
    arrays = [0.1 * rng.standard_normal(seconds * RATE, dtype=np.float32) for _ in range(recordings)]
    hours = recordings * seconds / 3600
    strided: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "wav").mkdir()
        for number, samples in enumerate(arrays):
            soundfile.write(f"{folder}/wav/{number}.wav", samples, RATE)
        for variant, model in models.items():
            saved = f"{folder}/{variant}.safetensors"
            save_classifier(model, Path(saved))
            model.predict(arrays[0][: 20 * RATE], sample_rate=RATE)  # libraries load
            jobs: dict[str, Callable[[], object]] = {
                "arrays": partial(model.predict, arrays, sample_rate=RATE, per_clip=True),
                "files": partial(command_line, "predict", saved, f"{folder}/wav", "-o", f"{folder}/{variant}.csv",
                                 "--per-clip", "--device", part.device.type),
            }  # fmt: skip
            for source, job in jobs.items():
                if part.left_s() < 5:
                    part.note(f"{variant} from {source}: not reached in the time")
                    continue
                start = time.perf_counter()
                job()
                own_s = time.perf_counter() - start
                strided.setdefault(source, own_s)
                add([variant, source, f"{own_s:.2f}", ratio(own_s, strided[source]), f"{hours / own_s:.2f}"])

"""Changed files of every format that the package reads: each gives a value or an `InputError`, soon and in little room.

Whole files are changed at random, by seed and number, and read in a process of its own that may take 1 GiB more than it
starts with and 20 s for each. Anything but a value or an `InputError` is a fault::

    python tests/fuzz.py --minutes 10                     # each format
    python tests/fuzz.py --minutes 1 --format store model --seed 7 --keep faults

``test_fuzz.py`` runs some cases of each format, and shows that a planted fault is found in each.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch
import yaml

from audiostride.audio.resampling import probe_audio, read_audio, resampled_length
from audiostride.cli import build_parser
from audiostride.dataset.check.audio_facts import read_facts
from audiostride.dataset.importers import import_clips
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.prepare import prepare_store
from audiostride.dataset.readers import StoreReader
from audiostride.dataset.store import read_store_clips, verify_store
from audiostride.dataset.unpacking import unpack
from audiostride.errors import InputError
from audiostride.inference import journal
from audiostride.inference.job import PredictionJob
from audiostride.inference.recordings import expand_paths
from audiostride.inference.settings import PredictionSettings
from audiostride.models import load_classifier
from audiostride.reporting.runs import read_run
from audiostride.training.config import TrainConfig
from audiostride.training.results import finished_metrics
from audiostride.training.run import train

LEGACY = Path(__file__).parent / "legacy" / "files"
ROOM_BYTES = 2**30
PATIENCE_S = 20.0
CASES_PER_PROCESS = 500  # what libraries keep would otherwise add up to the room

# Values that are right somewhere and absurd elsewhere.
VALUES: list[Any] = [
    None,
    True,
    [],
    {},
    "",
    "x",
    "\ud800",
    "a\rb",
    -1,
    0,
    0.5,
    3,
    1e9,
    2**31 - 1,
    2**31,
    2**63,
    10**30,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    [[]],
    [None],
    {"a": 1},
    "9" * 5000,
    [[[[[[[[]]]]]]]],
    "../x",
    "2024-02-30",
]
BYTES = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\0" * 8,
    b"\xff" * 8,
    b"\n",
    b'"',
    b",",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"NaN",
    b"[" * 3000,
    b"&a [*a]",
    b"\r",
    b"\xed\xa0\x80",
]


@dataclass(frozen=True)
class Format:
    """A format as the package reads it: whole files in a folder, and what reads them."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    changed: tuple[str, ...] = ("*",)
    """Patterns of the files that are changed; the others are only there."""
    writes: bool = False
    """Whether reading writes there too, so that each case needs all files anew."""


@dataclass(frozen=True)
class Fault:
    """A case that gave neither a value nor an `InputError`."""

    format: str
    number: int
    file: str
    what: str


# ---- changing files ----


def change(name: str, content: bytes, rng: random.Random) -> bytes:
    """The content of a file with one to four changes; those of tables and texts know what they are changing."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        changes: list[Callable[[bytes, random.Random], bytes]] = [_change_bytes]
        suffix = Path(name).suffix
        if suffix in (".json", ".jsonl", ".yaml", ".csv", ".txt", ".tsv"):
            changes += [_change_words, _change_words]
        if suffix in (".json", ".jsonl"):
            changes += [_change_json] * 4
        if suffix == ".yaml":
            changes += [_change_yaml] * 3
        if suffix == ".safetensors":
            changes += [_change_safetensors] * 3
        with contextlib.suppress(LookupError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
            content = rng.choice(changes)(content, rng)
    return content


def _change_bytes(content: bytes, rng: random.Random) -> bytes:
    # Half of the changes are near the beginning, where headers are.
    place = rng.randrange(min(len(content), 200) if rng.random() < 0.5 else len(content))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + content[place + rng.randrange(1, 9) :]
    piece = rng.choice(BYTES) if kind < 5 else content[place : place + rng.randrange(1, 4000)]
    return content[:place] + piece + content[place + (0 if kind == 3 else len(piece)) :]


def _change_words(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8")
    if rng.random() < 0.3:  # a whole line away, or twice
        lines = text.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        lines[place : place + 1] = [] if rng.random() < 0.5 else [lines[place]] * 2
        return "".join(lines).encode()
    word = rng.choice(list(re.finditer(r"[\w.-]+", text)))
    value = rng.choice(VALUES)
    put = value if isinstance(value, str) else json.dumps(value)
    return (text[: word.start()] + put + text[word.end() :]).encode("utf-8", "surrogatepass")


def _change_json(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines() if content.count(b"\n{") else [content]
    place = rng.randrange(len(lines))
    lines[place] = json.dumps(_change_tree(json.loads(lines[place]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def _change_yaml(content: bytes, rng: random.Random) -> bytes:
    return yaml.safe_dump(_change_tree(yaml.safe_load(content), rng), sort_keys=False).encode("utf-8", "surrogatepass")


def _change_safetensors(content: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.7:
        metadata = header["__metadata__"]
        key = rng.choice(list(metadata))
        inner = json.loads(metadata[key])
        inner.pop("checksum", None)  # as files have none that were written before there were any
        metadata[key] = json.dumps(_change_tree(inner, rng))
    else:
        header = _change_tree(header, rng)
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + content[8 + length :]


def _change_tree(tree: Any, rng: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            collect(node[key])

    collect(tree)
    if not places or rng.random() < 0.03:
        return rng.choice(VALUES)
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node[key], int | float):
        node[key] = rng.choice((-node[key], node[key] + 1, node[key] * 10**6, node[key] / 3))
    elif kind == 2:
        other, place = rng.choice(places)
        node[key] = json.loads(json.dumps(other[place]))
    else:
        node[key] = rng.choice(VALUES)
    return tree


# ---- formats ----


def _copy(*names: str) -> Callable[[Path], None]:
    """Makes what version 0.1.0 left; see legacy/make.py."""

    def make(folder: Path) -> None:
        for name in names:
            if (LEGACY / name).is_dir():
                shutil.copytree(LEGACY / name, folder / name)
            else:
                shutil.copy(LEGACY / name, folder)

    return make


def _tone(n_samples: int, sample_rate: int) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(n_samples) / sample_rate)


def _make_audio(folder: Path) -> None:
    for name, container, encoding in (
        ("a.wav", "WAV", "PCM_16"),
        ("float.wav", "WAV", "FLOAT"),
        ("adpcm.wav", "WAV", "IMA_ADPCM"),
        ("a.flac", "FLAC", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.aiff", "AIFF", "PCM_16"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
        ("a.au", "AU", "PCM_16"),
        ("a.caf", "CAF", "ALAC_16"),
        ("a.w64", "W64", "PCM_16"),
        ("a.rf64", "RF64", "PCM_16"),
    ):
        rate = 16000 if container in ("MP3", "OGG") else 8000
        soundfile.write(folder / name, _tone(rate // 4, rate), rate, format=container, subtype=encoding)


def _read_audio(folder: Path) -> None:
    file = max(folder.iterdir(), key=os.path.getmtime)
    read_facts(str(file), 0.0, float("nan"), name=file.name)
    samples, info = read_audio(file), probe_audio(file)
    assert np.isfinite(samples).all(), "not finite"
    assert len(samples) == resampled_length(info.frames, info.sample_rate, 16000), "another length than was said"


def _make_manifest(folder: Path) -> None:
    rows = [f"{number}.wav,{'ab'[number % 2]},train,0.0,0.1,{number}" for number in range(12)]
    (folder / "m.csv").write_text("\n".join(["path,label,split,start_s,duration_s,group", *rows]) + "\n")
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", _tone(1600, 16000), 16000)


def _read_manifest(folder: Path) -> None:
    clips, bad = inspect_manifest(folder / "m.csv", labels=("label",))
    assert len(clips) >= len({*bad.lines}), "bad rows that are not there"
    with contextlib.suppress(InputError):
        expand_paths([folder / "m.csv"])


def _make_config(folder: Path) -> None:
    shutil.copy(LEGACY / "stopped" / "config.yaml", folder)


def _read_config(folder: Path) -> None:
    with contextlib.suppress(InputError):
        TrainConfig.load(folder)
    _parse(["--config", str(folder / "config.yaml")])


def _make_options(folder: Path) -> None:
    options = "--task a=m.csv:x b=n.csv:y --out run --width 0.25 --max-steps 10 --lr 1e-3 --time-masks 1"
    blocks = ["--channels", "[8,16]", "--strides", "[[2,3],[2,2]]"]
    (folder / "options.json").write_text(json.dumps(options.split() + blocks))


def _read_options(folder: Path) -> None:
    try:
        options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return
    if isinstance(options, list) and not any(str(each).startswith(("-h", "--help", "--print")) for each in options):
        _parse([str(each) for each in options])


def _parse(options: list[str]) -> None:
    try:
        parsed = vars(build_parser("train").parse_args(options))
    except (SystemExit, argparse.ArgumentError):  # the parser has said why
        return
    known = TrainConfig.__dataclass_fields__
    TrainConfig(**{name: value for name, value in parsed.items() if name in known})


def _read_model(folder: Path) -> None:
    model = load_classifier(folder)
    with torch.inference_mode():
        model(torch.zeros(1, model.config.window_samples))


def _read_store(folder: Path) -> None:
    store = folder / "store"
    damaged = verify_store(store, progress=False)
    clips = read_store_clips(store)
    reader = StoreReader(clips, sample_rate=16000)
    for index in range(len(reader)):
        samples = reader.read(index, -10, min(int(reader.n_samples[index]) + 20, 10**6))
        assert damaged or np.isfinite(samples).all(), "not finite"


def _make_records(folder: Path) -> None:
    """A store whose writing was stopped before its end."""
    _make_manifest(folder)
    clips, _ = inspect_manifest(folder / "m.csv", labels=("label",))
    prepare_store(clips, folder / "store", where="m.csv", progress=False)
    header = json.loads((folder / "store" / "store.json").read_text())
    (folder / "store" / "store.json").unlink()
    write = folder / "store" / "plan.json"
    write.write_text(json.dumps({"fingerprint": header["fingerprint"], "files": [[0, 12]]}))
    entry = {
        "n_samples": [1600] * 12,
        "store_offset": [1600 * n for n in range(12)],
        "store_scale": [1.0] * 12,
        "errors": [],
    }
    entry |= {**header["files"][0], "sources": "?"}
    (folder / "store" / "audio-00000.json").write_text(json.dumps(entry))


def _read_records(folder: Path) -> None:
    clips, _ = inspect_manifest(folder / "m.csv", labels=("label",))
    summary = prepare_store(clips, folder / "store", where="m.csv", progress=False, jobs=1)
    assert (summary.clips, summary.seconds) == (12, 1.2), "another store"
    assert verify_store(folder / "store", progress=False) == [], "a damaged store"


@cache
def _load_model() -> Any:
    return load_classifier(LEGACY / "one_task")


def _predict() -> None:
    settings = PredictionSettings(hop_s=0.5, granularity="event", threshold=0.4, merge_gap_s=0.1)
    files = expand_paths(["recordings", "audio"])
    PredictionJob(_load_model(), files, Path("predictions.csv"), "csv", settings).run(torch.device("cpu"))


def _make_journal(folder: Path) -> None:
    """A job that was stopped behind its ninth recording."""
    _copy("recordings", "audio")(folder)
    add = journal.Journal.add

    def add_or_stop(self: Any, *given: Any, **named: Any) -> None:
        add(self, *given, **named)
        if self.n_done == 9:
            raise KeyboardInterrupt

    stopped = mock.patch.object(journal.Journal, "add", add_or_stop)
    with contextlib.chdir(folder), stopped, contextlib.suppress(KeyboardInterrupt):
        _predict()


def _read_journal(folder: Path) -> None:
    with contextlib.chdir(folder):
        _predict()
        found = Path("predictions.csv").read_bytes()
    assert found == _EXPECTED.setdefault("", found), "other predictions"


# What the first, whole job predicted.
_EXPECTED: dict[str, bytes] = {}


def _read_old_journal(folder: Path) -> None:
    with contextlib.chdir(folder):
        _predict()  # lines without checksums: who changes a score in them changes it


def _read_run(folder: Path) -> None:
    for run in sorted(folder.iterdir()):
        with contextlib.suppress(InputError):
            finished_metrics(run)
        read_run(run)


def _make_checkpoint(folder: Path) -> None:
    _copy("stopped", "audio", "store", "manifest.csv")(folder)
    config = folder / "stopped" / "config.yaml"
    config.write_text(config.read_text().replace("/mnt/tones/", ""))


def _read_checkpoint(folder: Path) -> None:
    with contextlib.chdir(folder):
        train(TrainConfig.load("stopped"), resume=True, progress=False)


def _make_archives(folder: Path) -> None:
    files = {f"set/{name}.txt": name.encode() * 300 for name in "abc"}
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    with tarfile.open(folder / "a.tar.gz", "w:gz") as packed_tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed_tar.addfile(member, io.BytesIO(content))


def _read_archives(folder: Path) -> None:
    for archive in (folder / "a.zip", folder / "a.tar.gz"):
        with contextlib.suppress(InputError):
            unpack(archive, folder / "unpacked")


def _make_metadata(folder: Path) -> None:
    from lab.archives import BUILDERS

    for name, build in BUILDERS.items():
        (folder / name).mkdir()
        build(folder / name, audio=False)


def _read_metadata(folder: Path) -> None:
    times = {data: max(map(os.path.getmtime, data.rglob("*"))) for data in sorted(folder.iterdir())}
    for data, time_s in times.items():
        if time_s == max(times.values()) or folder.name == "whole":  # where the changed file is
            import_clips(data.name, data)


FORMATS = {
    "audio": Format(_make_audio, _read_audio),
    "manifest": Format(_make_manifest, _read_manifest, ("m.csv",)),
    "config": Format(_make_config, _read_config),
    "options": Format(_make_options, _read_options),
    "model": Format(_copy("one_task/model.safetensors"), _read_model),
    "store": Format(_copy("store"), _read_store, ("store/*",)),
    "records": Format(_make_records, _read_records, ("store/*.json",), writes=True),
    "journal": Format(_make_journal, _read_journal, ("predictions.csv.partial/*",), writes=True),
    "old journal": Format(
        _copy("recordings", "audio", "predictions.csv.partial"),
        _read_old_journal,
        ("predictions.csv.partial/*",),
        writes=True,
    ),
    "run": Format(_copy("two_tasks", "whole", "one_task"), _read_run, ("*/*.csv", "*/*.json", "*/config.yaml")),
    "checkpoint": Format(_make_checkpoint, _read_checkpoint, ("stopped/checkpoints/last.ckpt",), writes=True),
    "archives": Format(_make_archives, _read_archives, writes=True),
    "metadata": Format(_make_metadata, _read_metadata, ("*.json", "*.txt", "*.csv")),
}


# ---- running cases ----


def run_case(form: Format, whole: dict[str, bytes], work: Path, number: int, seed: int) -> tuple[str, str | None]:
    """Change a file, read the folder; the changed file's name, and what went wrong or None."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(sorted({name for pattern in form.changed for name in whole if Path(name).match(pattern)}))
    if form.writes or not work.exists():
        shutil.rmtree(work, ignore_errors=True)
        lay(whole, work)
    (work / name).write_bytes(change(name, whole[name], rng))
    os.utime(work / name, (2e9, 2e9))  # by which a reader knows the changed file
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            form.read(work)
    except InputError as error:
        message = str(error)
        return name, None if message.strip() and "\n\n" not in message else f"no message: {message!r}"
    except BaseException:
        return name, traceback.format_exc()
    finally:
        if not form.writes:
            (work / name).write_bytes(whole[name])
    return name, None


def _work(form: Format, whole: dict[str, bytes], work: Path, numbers: range, seed: int, out: Connection) -> None:
    """Run cases in a process of their own, telling of each before and after it."""
    torch.set_num_threads(1)
    (held,) = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * int(held) + ROOM_BYTES,) * 2)
    with open(os.devnull, "w") as nothing:  # what libraries say behind Python's back
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    for number in numbers:
        out.send(run_case(form, whole, work, number, seed))
    out.send(None)


def fuzz(format_name: str, *, seed: int = 0, cases: int | None = None, minutes: float = 0.0) -> Iterator[Fault | int]:
    """Run cases of a format, by number or for a time; yields their faults, and at the end how many were run."""
    form, end = FORMATS[format_name], time.monotonic() + 60 * minutes
    whole, number = make_whole(form), 0
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as work:
        lay(whole, Path(work) / "whole")
        form.read(Path(work) / "whole")  # whole files must be fine, and what is loaded or reserved once is so
        while number < cases if cases is not None else time.monotonic() < end:
            last = number + CASES_PER_PROCESS if cases is None else min(cases, number + CASES_PER_PROCESS)
            here, there = context.Pipe(duplex=False)
            arguments = (form, whole, Path(work) / "case", range(number, last), seed, there)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            there.close()
            while True:
                try:
                    said = here.recv() if here.poll(PATIENCE_S) else "hangs"
                except EOFError:
                    process.join()
                    said = f"the process died (exit code {process.exitcode})"
                if said is None:
                    break
                file, what = ("?", said) if isinstance(said, str) else said
                if what is not None:
                    yield Fault(format_name, number, file, what)
                number += 1
                if isinstance(said, str) or (cases is None and time.monotonic() > end):
                    break
            process.kill()
            process.join()
            here.close()
    yield number


def make_whole(form: Format) -> dict[str, bytes]:
    """The files of a format by name, as they are when nothing is wrong."""
    with tempfile.TemporaryDirectory() as made:
        form.make(Path(made))
        files = sorted(file for file in Path(made).rglob("*") if file.is_file())
        return {file.relative_to(made).as_posix(): file.read_bytes() for file in files}


def lay(files: dict[str, bytes], folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def keep_case(format_name: str, number: int, *, seed: int, folder: Path) -> None:
    """Write the files of a case, to look at them."""
    form = FORMATS[format_name]
    only_lay = Format(form.make, lambda _: None, form.changed, writes=True)
    run_case(only_lay, make_whole(form), folder / f"{format_name}_{number}", number, seed)


def main() -> int:
    """The program; exit code 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each format")
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files of the first faults of each kind")
    given = parser.parse_args()
    n_faults = 0
    for name in given.format:
        kinds: dict[str, int] = {}
        for found in fuzz(name, seed=given.seed, minutes=given.minutes):
            if isinstance(found, int):
                print(f"{name}: {found:,} cases, {sum(kinds.values())} faults of {len(kinds)} kinds", flush=True)
                continue
            lines = found.what.strip().splitlines()
            places = [line.strip() for line in lines if line.strip().startswith("File")]
            kind = f"{lines[-1][:80]} | {places[-1][-80:] if places else ''}"
            kinds[kind] = kinds.get(kind, 0) + 1
            if kinds[kind] == 1:
                print(f"{name} {found.number} ({found.file}): {found.what.strip()}\n", flush=True)
                if given.keep:
                    keep_case(name, found.number, seed=given.seed, folder=given.keep)
        n_faults += sum(kinds.values())
    return 1 if n_faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
    sys.exit(main())

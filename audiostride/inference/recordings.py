"""What is classified: files, parts of them, clips of stores and arrays, found from paths and read in blocks."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from audiostride.audio.band import HIGHEST, SLOW_DOWN, BandEnergy
from audiostride.audio.resampling import LOUDEST, RESAMPLING_QUALITY, resampled_length, stream_samples
from audiostride.checks import check_count
from audiostride.dataset.folders import describe_not_taken, find_name_fault, is_audio, walk_folder
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.readers import AudioReader, StoreReader, clip_span
from audiostride.dataset.store import is_store
from audiostride.dataset.text_table import LISTS
from audiostride.errors import InputError
from audiostride.wording import count_of, escape

if TYPE_CHECKING:
    from torch import Tensor

WINDOWS_AT_ONCE = 16  # 1 MiB of windows of 1 s at 16 kHz


@dataclass(frozen=True)
class Recording:
    """A file or a part of it to classify; a clip of a reader; or samples in memory."""

    path: str
    """The file; of samples in memory, what they are called."""
    start_s: float = 0.0
    """Start of the part in the file, in seconds."""
    duration_s: float = math.nan
    """Length of the part in seconds; NaN goes to the end."""
    reader: AudioReader | None = None
    """The reader that reads its samples."""
    index: int = 0
    """Which clip of that reader, or row of a manifest, it is."""
    store: str = ""
    """The folder of the store whose clip it is."""
    samples: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """The samples themselves, ``(samples,)``."""
    samples_rate: int = 0
    """Their sample rate in Hz."""
    band: BandEnergy = field(default_factory=BandEnergy, compare=False, repr=False)
    """How much of what was read of a file or of samples lies in the model's band."""
    fault: str = ""
    """Why it cannot be read, where that is known; the path is then as it can be printed and written."""

    def stream(self, sample_rate: int, *, window: int) -> tuple[int, Iterator[NDArray[np.float32]]]:
        """Number of samples at `sample_rate` (Hz), and these samples in consecutive blocks.

        Args:
            sample_rate: In Hz.
            window: Samples that are read from a reader at a time.

        Returns:
            Their number, and the blocks; of a reader zeros may follow.

        Raises:
            InputError: The file is missing, unreadable or empty, or the part is not inside it; also while the blocks
                are read, where they cannot be decoded or are not finite.
        """
        if self.fault:
            raise InputError(self.fault)
        if self.samples is not None:
            samples = _resample(self.path, self.samples, self.samples_rate, sample_rate)
            self.band.add(self.samples, rate=self.samples_rate, model_rate=sample_rate)
            return len(samples), iter([samples])
        if self.reader is not None:
            return int(self.reader.n_samples[self.index]), self._stream_reader(self.reader, window)
        offset, n_samples = clip_span(self.path, self.start_s, self.duration_s, sample_rate=sample_rate)
        return n_samples, stream_samples(self.path, offset, n_samples, sample_rate=sample_rate, band=self.band)

    def _stream_reader(self, reader: AudioReader, window: int) -> Iterator[NDArray[np.float32]]:
        """The samples in blocks of whole windows, which are read one by one; zeros fill up the last one."""
        n_windows = -(-int(reader.n_samples[self.index]) // window)
        for first in range(0, n_windows, WINDOWS_AT_ONCE):
            samples = np.empty((min(WINDOWS_AT_ONCE, n_windows - first), window), dtype=np.float32)
            for number, row in enumerate(samples, start=first):
                if not reader.read_into(self.index, number * window, row):
                    raise InputError(reader.failed[self.index])
            yield samples.ravel()


def _resample(name: str, samples: NDArray[np.float32], rate_in: int, rate_out: int) -> NDArray[np.float32]:
    if not np.isfinite(samples).all():
        count = int((~np.isfinite(samples)).sum())
        raise InputError(f"predict: {name} must be finite, got {count} samples that are NaN or infinite; repair it")
    if (peak := float(np.abs(samples).max())) > LOUDEST:
        raise InputError(f"predict: {name} must be in [-1, 1], give or take, got {peak:.3g}; divide it by full scale")
    if rate_in == rate_out:
        return samples
    found = np.zeros(resampled_length(len(samples), rate_in, rate_out), dtype=np.float32)
    resampled = soxr.resample(samples, rate_in, rate_out, quality=RESAMPLING_QUALITY)[: len(found)]
    found[: len(resampled)] = resampled
    return found


def describe_unheard(recordings: Sequence[Recording], sample_rate: int) -> str:
    """A line on recordings that were read and lie almost whole above a model's band; empty where there are none."""
    above = [recording.path for recording in recordings if recording.band.is_above]
    if not above:
        return ""
    return (
        f"predict: {len(above)} of {len(recordings)} recordings lie almost whole above {HIGHEST * sample_rate:,.0f} "
        f"Hz, where a model of {sample_rate} Hz hears nothing, such as {above[0]}; {SLOW_DOWN}"
    )


def take_recordings(given: Any, *, sample_rate: int, samples_rate: int | None = None) -> list[Recording]:
    """The recordings that paths, arrays or a mixture of them stand for.

    Args:
        given: A path or an array, or a sequence of them. Arrays and tensors are 1-D, float, in [-1, 1].
        sample_rate: Of the model, in Hz.
        samples_rate: Of the arrays, in Hz.

    Returns:
        What `expand_paths` finds for paths; arrays are called ``array 0``, ``array 1`` and so on.

    Raises:
        InputError: As `expand_paths`; arrays without a rate, of another shape or kind, or empty.
    """
    single = isinstance(given, str | Path | Recording) or hasattr(given, "ndim")
    found: list[Recording] = []
    n_arrays = 0
    for item in [given] if single else given:
        if isinstance(item, Recording):
            found.append(item)
        elif isinstance(item, str | Path):
            found += expand_paths([item], sample_rate=sample_rate)
        else:
            found.append(_take_array(item, f"array {n_arrays}", samples_rate))
            n_arrays += 1
    if not found:
        raise InputError("predict: there must be at least one path or array, got none")
    return found


def _take_array(array: "NDArray[Any] | Tensor | Sequence[float]", name: str, samples_rate: int | None) -> Recording:
    samples = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    if samples.ndim != 1 or samples.dtype.kind != "f" or not samples.size:
        raise InputError(
            f"predict: {name} must be 1-D with at least one sample, float, in [-1, 1], got shape {samples.shape} of "
            f"{samples.dtype}; take one channel, divide integers by their full scale, give several as a list"
        )
    if samples_rate is None:
        raise InputError("predict: sample_rate must be given with arrays, in Hz, got None; e.g. sample_rate=44100")
    check_count("predict", sample_rate=samples_rate)
    return Recording(name, samples=np.ascontiguousarray(samples, dtype=np.float32), samples_rate=samples_rate)


def expand_paths(
    paths: Iterable[str | Path], *, sample_rate: int = 16000, say: Callable[[str], object] = warnings.warn
) -> list[Recording]:
    """What paths name: files as they are, the audio files below folders, the clips of manifests and of stores.

    A path with ``*``, ``?`` or ``[`` that does not exist is a pattern (``**`` goes through folders). What it matches is
    taken in the order of the names; of files those with a suffix of audio, unless the pattern ends in a suffix. Each
    part of a file is there once, however often it is named. What cannot be read or named in a table is a recording with
    a fault.

    Args:
        paths: Files, folders, patterns, manifests, lists of paths, stores.
        sample_rate: Of the model, in Hz.
        say: Takes a line on each thing that is left out.

    Raises:
        InputError: A path that does not exist, a folder or pattern without audio files, a bad manifest or store.
    """
    found: dict[tuple[str, float, float | None], Recording] = {}
    count = 0
    for path in map(str, paths):
        expand = _expand_pattern if has_magic(path) and not os.path.lexists(path) else _expand_path
        for each in expand(path, sample_rate, say):
            count += 1
            length = None if math.isnan(each.duration_s) else each.duration_s  # NaN is not equal to NaN
            found.setdefault((os.path.realpath(each.path), each.start_s, length), each)
    if count > len(found):
        say(f"named more than once, predicted once: {count_of(count - len(found), 'clip')}")
    return list(found.values())


def _expand_path(name: str, sample_rate: int, say: Callable[[str], object]) -> list[Recording]:
    path = Path(name)
    if is_store(path) or path.suffix.lower() == ".csv":
        return _read_recordings(path, sample_rate, say)
    if _is_text(path):
        try:
            return _read_recordings(path, sample_rate, say)
        except InputError as error:  # notes and labels lie beside recordings, and a shell names them with these
            return [_make_recording(name, str(error))]
    if os.path.isdir(path):
        walk = walk_folder(path)
        for note in walk.notes():
            say(note)
        files = (os.path.join(path, file) for file in walk.files if is_audio(file))
        found = [_make_recording(place, walk.faults.get(place)) for place in {*files, *walk.faults}]
        if not found:
            raise InputError(f"predict: folder {path} must hold audio files, found none")
        return sorted(found, key=lambda each: Path(each.path).parts)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(f"predict: path {path} does not exist") from error
    except OSError as error:
        return [_make_recording(name, f"audio file {escape(name)} cannot be read: {error.strerror}")]
    return [_make_recording(name, find_name_fault(name))]


def _make_recording(path: str, fault: str | None) -> Recording:
    return Recording(escape(path), fault=fault) if fault else Recording(str(Path(path)))


def _is_text(path: Path) -> bool:
    """Whether a file may be a table or a list of paths: what is named so may hold audio all the same."""
    head = b""
    if path.suffix.lower() in (".tsv", *LISTS):
        with suppress(OSError), path.open("rb") as file:
            head = file.read(4096)
    return head != b"" and b"\0" not in head


def _expand_pattern(pattern: str, sample_rate: int, say: Callable[[str], object]) -> list[Recording]:
    matches = sorted(glob(pattern, recursive=True))
    folders = sorted({*matches, *glob(os.path.dirname(pattern), recursive=True)})
    if "**" in Path(pattern).parts:
        matches = [match for match in matches if os.path.isfile(match)]  # its folders' files are matches themselves
    # A pattern that says which suffix, such as *.webm, is taken at its word.
    suffix = Path(pattern).suffix
    any_kind = suffix != "" and not has_magic(suffix)
    chosen = [path for path in matches if os.path.isdir(path) or any_kind or is_audio(path)]
    for note in describe_not_taken({*matches} - {*chosen}):
        say(f"{pattern}: {note}")
    found = [recording for path in chosen for recording in _expand_path(path, sample_rate, say)]
    # Folders that nobody may look into match nothing, without a word.
    for folder in folders:
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            found.append(_make_recording(folder, f"folder {escape(folder)} cannot be read: Permission denied"))
    if not found:
        what = f"it matches {len(matches)} files without a suffix of audio" if matches else "it matches nothing"
        raise InputError(f"predict: pattern {pattern} must match audio files or folders of them, {what}")
    return found


def _read_recordings(manifest: Path, sample_rate: int, say: Callable[[str], object]) -> list[Recording]:
    clips, bad = inspect_manifest(manifest, splits=False)
    for note in bad.notes:
        say(note)
    # A file that is missing is reported when its turn comes, like one that cannot be read.
    bad.only(("row",)).raise_if_any(f"manifest {manifest}", "mend these rows")
    reader = StoreReader(clips, sample_rate=sample_rate) if is_store(manifest) else None
    store = "" if reader is None else str(manifest.absolute())
    missing = dict(zip(bad.lines, bad.messages, strict=True))
    rows = zip(*(clips[column].tolist() for column in ("path", "start_s", "duration_s", "line")), strict=True)
    return [
        Recording(path, start_s, duration_s, reader, index, store, fault=missing.get(line, ""))
        for index, (path, start_s, duration_s, line) in enumerate(rows)
    ]

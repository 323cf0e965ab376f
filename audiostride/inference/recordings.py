"""What is classified: files, parts of them, clips of stores and arrays, found from paths and read in blocks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from audiostride.audio.resampling import (
    AUDIO_SUFFIXES,
    RESAMPLING_QUALITY,
    find_audio_files,
    resampled_length,
    stream_samples,
)
from audiostride.checks import check_count
from audiostride.dataset.manifest import inspect_manifest
from audiostride.dataset.readers import AudioReader, StoreReader, clip_span
from audiostride.dataset.store import is_store
from audiostride.errors import InputError

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

    def stream(self, sample_rate: int, *, window: int) -> tuple[int, Iterator[NDArray[np.float32]]]:
        """Number of samples at `sample_rate` (Hz), and these samples in consecutive blocks.

        Args:
            sample_rate: In Hz.
            window: Samples that are read from a reader at a time.

        Returns:
            Their number, and the blocks; those of a reader end with zeros where its last window does.

        Raises:
            InputError: The file is missing, unreadable or empty, or the part is not inside it; also while the blocks
                are read, where they cannot be decoded or are not finite.
        """
        if self.samples is not None:
            samples = _resample(self.path, self.samples, self.samples_rate, sample_rate)
            return len(samples), iter([samples])
        if self.reader is not None:
            return int(self.reader.n_samples[self.index]), self._stream_reader(self.reader, window)
        offset, n_samples = clip_span(self.path, self.start_s, self.duration_s, sample_rate=sample_rate)
        return n_samples, stream_samples(self.path, offset, n_samples, sample_rate=sample_rate)

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
    if rate_in == rate_out:
        return samples
    found = np.zeros(resampled_length(len(samples), rate_in, rate_out), dtype=np.float32)
    resampled = soxr.resample(samples, rate_in, rate_out, quality=RESAMPLING_QUALITY)[: len(found)]
    found[: len(resampled)] = resampled
    return found


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


def expand_paths(paths: Iterable[str | Path], *, sample_rate: int = 16000) -> list[Recording]:
    """What paths name: files as they are, the audio files below folders, the clips of manifests and of stores.

    A path with ``*``, ``?`` or ``[`` that does not exist is a pattern (``**`` goes through folders). What it matches is
    taken in the order of the names; of files those with a suffix of audio, unless the pattern ends in a suffix.

    Raises:
        InputError: A path that does not exist, a folder or pattern without audio files, a bad manifest or store.
    """
    found: list[Recording] = []
    for path in paths:
        name = str(path)
        if has_magic(name) and not Path(name).exists():
            found += _expand_pattern(name, sample_rate)
        else:
            found += _expand_path(Path(name), sample_rate)
    return found


def _expand_path(path: Path, sample_rate: int) -> list[Recording]:
    if is_store(path) or path.suffix.lower() == ".csv":
        return _read_recordings(path, sample_rate)
    if path.is_dir():
        files = find_audio_files(path)
        if not files:
            raise InputError(f"predict: folder {path} must hold audio files, found none")
        return [Recording(str(file)) for file in files]
    if path.exists():
        return [Recording(str(path))]
    raise InputError(f"predict: path {path} does not exist")


def _expand_pattern(pattern: str, sample_rate: int) -> list[Recording]:
    matches = [Path(match) for match in sorted(glob(pattern, recursive=True))]
    if any(part == "**" for part in Path(pattern).parts):
        matches = [match for match in matches if match.is_file()]  # its folders' files are matches themselves
    # A pattern that says which suffix, such as *.webm, is taken at its word.
    suffix = Path(pattern).suffix
    any_kind = suffix != "" and not has_magic(suffix)
    chosen = [path for path in matches if path.is_dir() or any_kind or path.suffix.lower() in AUDIO_SUFFIXES]
    if not chosen:
        found = f"it matches {len(matches)} files without a suffix of audio" if matches else "it matches nothing"
        raise InputError(f"predict: pattern {pattern} must match audio files or folders of them, {found}")
    return [recording for path in chosen for recording in _expand_path(path, sample_rate)]


def _read_recordings(manifest: Path, sample_rate: int) -> list[Recording]:
    clips, bad = inspect_manifest(manifest)
    # A file that is missing is reported when its turn comes, like one that cannot be read.
    bad.only(("row",)).raise_if_any(f"manifest {manifest}", "mend these rows")
    reader = StoreReader(clips, sample_rate=sample_rate) if is_store(manifest) else None
    store = "" if reader is None else str(manifest.absolute())
    rows = zip(clips["path"].tolist(), clips["start_s"].tolist(), clips["duration_s"].tolist(), strict=True)
    return [Recording(*row, reader, index, store) for index, row in enumerate(rows)]

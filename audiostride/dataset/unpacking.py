"""Unpacking archives with progress; nothing lands outside of the folder."""

import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from audiostride.errors import InputError
from audiostride.progress import progress_bar

ARCHIVE_SUFFIXES = (".zip", ".tar.gz")


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked.

    >>> is_archive("nsynth-test.jsonwav.tar.gz"), is_archive("table.csv")
    (True, False)
    """
    return name.endswith(ARCHIVE_SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar.gz archive into a folder, which is made if it is not there; files there are replaced.

    Raises:
        InputError: The archive is not whole (it is removed, so that it is fetched again), or it would write outside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.endswith(".zip"):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, tarfile.ReadError) as error:
        archive.unlink()
        raise InputError(
            f"download: {archive} must be a whole archive, got one that cannot be unpacked: {error}; it is removed, "
            "run the same command again to fetch it anew"
        ) from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            if ".." in (inner := PurePosixPath(member.filename)).parts or inner.is_absolute():
                raise _outside(archive, member.filename)
        total = sum(member.file_size for member in members)
        with progress_bar(total=total, desc=archive.name, unit="B", unit_scale=True) as bar:
            for member in members:
                opened.extract(member, folder)
                bar.update(member.file_size)


def _unpack_tar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise InputError("download: unpacking safely needs Python 3.11.4 or newer, got an older one; update Python")
    with (
        open(archive, "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|gz") as opened,
        progress_bar(total=archive.stat().st_size, desc=archive.name, unit="B", unit_scale=True) as bar,
    ):
        for member in opened:
            try:
                opened.extract(member, folder, filter="data")
            except tarfile.FilterError as error:
                raise _outside(archive, member.name) from error
            bar.update(packed.tell() - bar.n)


def _outside(archive: Path, member: str) -> InputError:
    return InputError(
        f"download: {archive} must hold plain files below its folder, got {member!r}; this is not the published "
        "archive, remove it and what was unpacked from it"
    )

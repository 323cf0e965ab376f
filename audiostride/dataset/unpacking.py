"""Unpacking archives with progress; nothing lands outside of the folder."""

import errno
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from audiostride.errors import InputError, reason_of
from audiostride.progress import progress_bar

ARCHIVE_SUFFIXES = (".zip", ".tar.gz")

# What zipfile and tarfile raise of archives that were cut off or changed; tests/fuzz.py looks for more.
BROKEN: tuple[type[Exception], ...] = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError)
BROKEN += (RuntimeError, LookupError, TypeError, ValueError, OSError)
# Errors of the system that tell of the disk and not of the archive.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if archive.name.endswith(".zip"):
            _unpack_zip(archive, folder)
        else:
            _unpack_tar(archive, folder)
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise InputError(
                f"download: {folder} must take what {archive} holds, but writing failed: {reason_of(error)}; make room "
                "there and run the same command again"
            ) from error
        archive.unlink(missing_ok=True)
        raise InputError(
            f"download: {archive} must be a whole archive, got one that cannot be unpacked: {reason_of(error)}; it is "
            "removed, run the same command again to fetch it anew"
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

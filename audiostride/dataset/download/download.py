"""Downloading the archives of a data-set card: checked, resumed, unpacked, from the card's addresses and no others."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from audiostride.dataset.download.fetching import content_length, fetch
from audiostride.dataset.download.unpacking import is_archive, unpack
from audiostride.errors import InputError
from audiostride.writing import write_json, write_text

GB = 1e9
CHECKSUMS = "checksums.json"


def download_archives(
    card: Mapping[str, Any],
    root: str | Path,
    *,
    attempts: int = 5,
    wait_s: float = 2.0,
    say: Callable[[str], None] = print,
) -> None:
    """Download the files of a card into `root` and unpack them there.

    A file that is there with the right checksum is not fetched again, a broken download goes on where it stopped, an
    unpacking that was killed is done again. Files without a checksum on the card have theirs recorded in
    ``checksums.json`` at the first download and compared with it from then on. Archives are kept; one that was unpacked
    is not needed any more, and not fetched again when it is removed.

    Args:
        card: As `read_card` returns it.
        root: Folder that is made if it is not there.
        attempts: Connections in a row that may break without bringing a byte.
        wait_s: Seconds before the second of these attempts; twice as long before each further one.
        say: Told the licence, the sizes and what is being done.

    Raises:
        InputError: Too little room, a server that does not answer or has no such file, a wrong checksum, an archive
            that cannot be unpacked.
    """
    root = Path(root)
    files = card.get("files", [])
    if not files:
        raise InputError(f"download: the data set must have files on its card, got none for {card['name']}")
    say(f"{card['title']}\n  source: {card['source']}\n  licence: {card['licence']}\n  please cite: {card['citation']}")
    root.mkdir(parents=True, exist_ok=True)
    waiting = [file for file in files if not _is_unpacked(file, root)]
    for file in files:
        done = "" if file in waiting else f" (unpacked already; remove {_mark(file, root)} to do it again)"
        say(f"  {file['name']}: {_gigabytes(file['size_gb'] * GB)} from {file['url']}{done}")
    _check_space(waiting, root, say)
    for file in waiting:
        _fetch_checked(file, root, attempts=attempts, wait_s=wait_s, say=say)
        if is_archive(file["name"]):
            say(f"unpacking {root / file['name']} to {root / file['unpack_to']}")
            unpack(root / file["name"], root / file["unpack_to"])
        # Only now, since a file that could not be unpacked must not become the measure of later ones.
        _record_checksum(file, root, say)
        if is_archive(file["name"]):
            write_text(_mark(file, root), f"{_checksum(file, root)}\n")
    archives = [root / file["name"] for file in files if is_archive(file["name"]) and (root / file["name"]).exists()]
    if archives:
        used = _gigabytes(sum(archive.stat().st_size for archive in archives))
        say(f"the archives are kept ({used}) and not needed any more; remove them with")
        say(f"  cd {quote(str(root))} && rm {' '.join(archive.name for archive in archives)}")


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / GB:.2f} GB" if n_bytes >= GB / 100 else f"{n_bytes / 1e6:.2f} MB"


def _check_space(files: list[dict[str, Any]], root: Path, say: Callable[[str], None]) -> None:
    download = _bytes_to_fetch(files, root)
    unpacked = sum(file["unpacked_gb"] * GB for file in files)
    free = shutil.disk_usage(root).free
    parts = f"{_gigabytes(download)} to download and {_gigabytes(unpacked)} unpacked"
    say(f"needed: {parts}; free in {root}: {_gigabytes(free)}")
    if download + unpacked > free:
        raise InputError(
            f"download: {root} must have {_gigabytes(download + unpacked)} free ({parts}), got {_gigabytes(free)}; "
            "make room or give another ROOT"
        )


def _bytes_to_fetch(files: list[dict[str, Any]], root: Path) -> float:
    """What is left to fetch: the server's lengths, or the card's sizes where the server gives none."""
    total = 0.0
    reachable = True
    for file in files:
        target, part = root / file["name"], _part(file, root)
        if target.exists():
            continue
        length = None
        if reachable:
            try:
                length = content_length(file["url"])
            except OSError:
                # Do not wait for every file of a server that is away; fetching says what is wrong with it.
                reachable = False
        size = file["size_gb"] * GB if length is None else length
        total += max(0.0, size - (part.stat().st_size if part.exists() else 0))
    return total


def _part(file: Mapping[str, Any], root: Path) -> Path:
    return root / f"{file['name']}.part"


def _mark(file: Mapping[str, Any], root: Path) -> Path:
    """Holds the checksum of the archive that was unpacked to the end; stays valid when the archive is removed."""
    return root / f"{file['name']}.unpacked"


def _is_unpacked(file: Mapping[str, Any], root: Path) -> bool:
    mark = _mark(file, root)
    return mark.is_file() and mark.read_text(encoding="utf-8") == f"{_checksum(file, root)}\n"


def _fetch_checked(
    file: Mapping[str, Any], root: Path, *, attempts: int, wait_s: float, say: Callable[[str], None]
) -> None:
    """The file in `root`, whole and with the right checksum."""
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel("WARNING")
    target, part = root / file["name"], _part(file, root)
    checksum = _checksum(file, root)
    if target.exists():
        say(f"checking {target}")

    def download(url: str, temporary: str, _: Any) -> None:
        if target.exists():
            say(f"{target} does not have the checksum {checksum}, it is fetched again")
        # pooch's temporary file is lost when the process is killed, the part beside the target is not: the temporary
        # one becomes a second name of it while the checksum is computed.
        os.unlink(temporary)
        _drop_other_names(part)
        fetch(url, part, attempts=attempts, wait_s=wait_s)
        try:
            os.link(part, temporary)
        except OSError:  # a file system without links
            os.replace(part, temporary)

    try:
        pooch.retrieve(file["url"], known_hash=checksum, fname=target.name, path=root, downloader=download)
    except InputError:
        raise
    except ValueError as error:
        part.unlink(missing_ok=True)
        got = str(error).partition("but got ")[2].partition(".")[0]
        changed = "" if "checksum" in file else f", or remove its line from {root / CHECKSUMS} if it was published anew"
        raise InputError(
            f"download: {target.name} must have the checksum {checksum}, got {got}; what was fetched is removed: "
            f"run the same command again{changed}"
        ) from error
    part.unlink(missing_ok=True)


def _drop_other_names(part: Path) -> None:
    """Remove second names of the part that a killed check left behind."""
    if part.exists() and part.stat().st_nlink > 1:
        inode = part.stat().st_ino
        with os.scandir(part.parent) as entries:
            others = [entry.path for entry in entries if entry.inode() == inode and entry.name != part.name]
        for other in others:
            os.unlink(other)


def _checksum(file: Mapping[str, Any], root: Path) -> str | None:
    """The card's checksum, else the one recorded in `root`, else none."""
    checksum: str | None = file.get("checksum") or _recorded(root).get(file["name"])
    return checksum


def _recorded(root: Path) -> dict[str, str]:
    record = root / CHECKSUMS
    if not record.exists():
        return {}
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"download: {record} must be a JSON object, got {error}; mend or remove it") from error


def _record_checksum(file: Mapping[str, Any], root: Path, say: Callable[[str], None]) -> None:
    if _checksum(file, root) is None:
        import pooch

        checksum = f"sha256:{pooch.file_hash(str(root / file['name']), alg='sha256')}"
        write_json(root / CHECKSUMS, _recorded(root) | {file["name"]: checksum})
        say(f"{file['name']} has no published checksum; recorded in {root / CHECKSUMS}: {checksum}")

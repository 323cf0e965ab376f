"""Downloading the archives of a data-set card: checked, resumed, unpacked, from the card's addresses and no others."""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from audiostride.checks import read_json
from audiostride.dataset.unpacking import is_archive, unpack
from audiostride.errors import InputError
from audiostride.progress import progress_bar
from audiostride.writing import write_json, write_text

GB = 1e9
CHECKSUMS = "checksums.json"
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
# Answers that mean "later", not "never".
BUSY = (408, 425, 429, 500, 502, 503, 504)


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
        say: Gets the licence, the sizes and what is being done, line by line.

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
                length = _content_length(file["url"])
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
    target, part, checksum = root / file["name"], _part(file, root), _checksum(file, root)
    if target.exists():
        say(f"checking {target}")
        if checksum is None or _hash_file(target, checksum) == checksum:
            return
        say(f"{target} does not have the checksum {checksum}, it is fetched again")
    _fetch(file["url"], part, attempts=attempts, wait_s=wait_s)
    if checksum is not None and (got := _hash_file(part, checksum)) != checksum:
        part.unlink()
        changed = "" if "checksum" in file else f", or remove its line from {root / CHECKSUMS} if it was published anew"
        raise InputError(
            f"download: {target.name} must have the checksum {checksum}, got {got}; what was fetched is removed: "
            f"run the same command again{changed}"
        )
    part.replace(target)


def _hash_file(path: Path, like: str = "sha256:") -> str:
    """The checksum of a file by the algorithm of another, such as ``md5:0123abcd``."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def _checksum(file: Mapping[str, Any], root: Path) -> str | None:
    """The card's checksum, else the one recorded in `root`, else none."""
    checksum: str | None = file.get("checksum") or _recorded(root).get(file["name"])
    return checksum


def _recorded(root: Path) -> dict[str, str]:
    record = root / CHECKSUMS
    if not record.exists():
        return {}
    found: dict[str, str] = read_json("download", record, dict[str, str], advice="mend or remove it")
    for name, checksum in found.items():
        if checksum.partition(":")[0] not in hashlib.algorithms_guaranteed:
            raise InputError(f"download: {record} must hold checksums such as md5:0123abcd, got {checksum!r} of {name}")
    return found


def _record_checksum(file: Mapping[str, Any], root: Path, say: Callable[[str], None]) -> None:
    if _checksum(file, root) is None:
        checksum = _hash_file(root / file["name"])
        write_json(root / CHECKSUMS, _recorded(root) | {file["name"]: checksum})
        say(f"{file['name']} has no published checksum; recorded in {root / CHECKSUMS}: {checksum}")


def _content_length(url: str) -> int | None:
    """Bytes of a file as its server states them, None where it does not.

    Raises:
        OSError: The server cannot be reached.
    """
    try:
        with _open(url, method="HEAD") as answer:
            length = answer.headers["Content-Length"]
            return int(length) if length else None
    except urllib.error.HTTPError as error:
        # Not every server answers HEAD; one that has no such file will say so when it is fetched.
        error.close()
        return None


def _fetch(url: str, part: Path, *, attempts: int, wait_s: float) -> None:
    """Bring to `part` what it does not have yet of a file; what is there is kept when this fails.

    Args:
        url: Address of the file; redirects are followed.
        part: The partial file, which need not exist.
        attempts: Connections in a row that may break without bringing a byte.
        wait_s: Seconds before the second of these attempts; twice as long before each further one.

    Raises:
        InputError: The server has no such file or sends a web page instead, or the connection keeps breaking.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            if _fetch_once(url, part, first=before):
                return
            reason = "the connection broke"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in BUSY:
                raise InputError(
                    f"download: the server must have {url}, got {error.code} {error.reason}; try again later, or get "
                    f"the file by hand from the source of the data set and put it into {part.parent}"
                ) from error
            reason = f"the server answered {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures >= attempts:
            raise InputError(
                f"download: {url} must be fetched whole, got {_size(part):,} bytes and then: {reason}; run the same "
                "command again, it goes on from there"
            )
        time.sleep(wait_s * 2 ** (failures - 1))


def _open(url: str, *, method: str = "GET", first: int = 0) -> Any:
    headers = {"User-Agent": "audiostride"} | ({"Range": f"bytes={first}-"} if first else {})
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT_S)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fetch_once(url: str, part: Path, *, first: int) -> bool:
    """Append to `part` what one connection brings; True if that was the rest of the file."""
    try:
        answer = _open(url, first=first)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        # Nothing lies beyond the end: the part is whole if it is as long as the file, else it is another file's.
        if error.headers.get("Content-Range", "").strip() == f"bytes */{first}":
            return True
        part.unlink()
        return False
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise InputError(
                f"download: {url} must be a file, got a web page; open it in a browser to see what it says"
            )
        appends = answer.status == 206
        if appends and not answer.headers.get("Content-Range", "").startswith(f"bytes {first}-"):
            raise OSError("the server sent another range than the one asked for")
        # A server that does not know ranges sends the whole file: start over.
        start = first if appends else 0
        length = answer.headers["Content-Length"]
        total = start + int(length) if length else None
        bar_settings = {"desc": part.stem, "unit": "B", "unit_scale": True, "unit_divisor": 1000}
        with (
            open(part, "ab" if appends else "wb") as out,
            progress_bar(total=total, initial=start, **bar_settings) as bar,
        ):
            while chunk := answer.read(CHUNK_BYTES):
                out.write(chunk)
                bar.update(len(chunk))
    return total is None or _size(part) == total

"""Fetching one file over HTTP, going on where a broken connection stopped."""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from audiostride.errors import InputError
from audiostride.progress import progress_bar

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
# Answers that mean "later", not "never".
BUSY = (408, 425, 429, 500, 502, 503, 504)


def content_length(url: str) -> int | None:
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


def fetch(url: str, part: Path, *, attempts: int, wait_s: float) -> None:
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

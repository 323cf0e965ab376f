"""Downloads against a server of this process: broken connections, ranges, checksums, room, unpacking."""

import errno
import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiostride.dataset.download import download_archives
from audiostride.dataset.unpacking import unpack
from audiostride.errors import InputError

PAYLOAD = np.random.default_rng(0).bytes(3_000_000)  # three chunks of a read, not compressible


@dataclass
class Server:
    """What the server offers, how it misbehaves, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    head: bool = True
    lengths: bool = True
    content_type: str = "application/octet-stream"
    breaks: list[int] = field(default_factory=list)
    """Bytes after which the next connections break."""
    answers: list[int] = field(default_factory=list)
    """Status codes that the next GET requests get instead of the file."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request."""
    sent: int = 0
    """Bytes of all bodies."""

    def gets(self) -> list[tuple[str, str | None]]:
        return [(path, requested) for method, path, requested in self.requests if method == "GET"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, *, head: bool) -> None:
            requested = self.headers["Range"]
            state.requests.append((self.command, self.path, requested))
            if self.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = state.files.get(self.path)
            status = 404 if content is None else 501 if head and not state.head else 200
            if state.answers and not head:
                status = state.answers.pop(0)
            if content is None or status != 200:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first = int(requested.removeprefix("bytes=").removesuffix("-")) if requested and state.ranges else 0
            if first >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if requested and state.ranges else 200)
            if requested and state.ranges:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Type", state.content_type)
            if state.lengths:
                self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            if not head:
                body = content[first:]
                body = body[: state.breaks.pop(0)] if state.breaks else body
                state.sent += len(body)  # before the client has it all and looks
                with suppress(BrokenPipeError, ConnectionResetError):  # a client that has seen enough
                    self.wfile.write(body)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_address[1]}"
    yield state
    listening.shutdown()
    thread.join()
    listening.server_close()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def make_card(
    server: Server, files: dict[str, bytes], *, checksum: str | None = "md5", **fields: Any
) -> dict[str, Any]:
    """A card of files that the server has."""
    entries = []
    for name, content in files.items():
        server.files[f"/{name}"] = content
        entry = {"name": name, "url": f"{server.url}/{name}", "size_gb": 0.5, "unpacked_gb": 0.0, "unpack_to": ""}
        if checksum:
            entry["checksum"] = f"{checksum}:{hashlib.new(checksum, content).hexdigest()}"
        entries.append(entry | fields)
    card = {"name": "tiny", "title": "Tiny", "source": "a page", "licence": "CC BY 4.0", "citation": "Me (2024)"}
    return {**card, "files": entries}


def download(card: dict[str, Any], root: Path, **settings: Any) -> list[str]:
    """What the download says."""
    said: list[str] = []
    download_archives(card, root, say=said.append, **{"attempts": 3, "wait_s": 0.0, **settings})
    return said


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_files_are_fetched_checked_and_unpacked_with_the_licence_first(server: Server, tmp_path: Path) -> None:
    card = make_card(
        server,
        {"a.zip": zip_of({"wav/1.wav": b"one"}), "b.tar.gz": tar_of({"wav/2.wav": b"two"}), "c.csv": b"x,y\n"},
        checksum="sha256",
        unpack_to="inner",
    )
    said = download(card, tmp_path / "new")
    root = tmp_path / "new"
    assert (root / "inner/wav/1.wav").read_bytes() == b"one"
    assert (root / "inner/wav/2.wav").read_bytes() == b"two"
    assert (root / "c.csv").read_bytes() == b"x,y\n"
    assert names_in(root) == ["a.zip", "a.zip.unpacked", "b.tar.gz", "b.tar.gz.unpacked", "c.csv", "inner"]
    assert "licence: CC BY 4.0" in said[0]
    assert "please cite: Me (2024)" in said[0]
    assert said[1].startswith("  a.zip: 0.50 GB from http://127.0.0.1")
    assert said[-1] == f"  cd {root} && rm a.zip b.tar.gz"


def test_what_is_there_is_not_fetched_again_even_when_an_unpacked_archive_was_removed(
    server: Server, tmp_path: Path
) -> None:
    card = make_card(server, {"a.zip": zip_of({"1.wav": b"one"}), "c.csv": b"x,y\n"})
    download(card, tmp_path)
    (tmp_path / "a.zip").unlink()
    before = len(server.requests)
    said = download(card, tmp_path)
    assert len(server.requests) == before
    assert any("unpacked already" in line and "a.zip.unpacked" in line for line in said)
    (tmp_path / "a.zip.unpacked").unlink()
    (tmp_path / "1.wav").unlink()
    download(card, tmp_path)
    assert (tmp_path / "1.wav").read_bytes() == b"one"


def test_a_broken_connection_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    server.breaks = [1_300_000, 700_000]
    download(card, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD
    assert server.gets() == [("/big.bin", None), ("/big.bin", "bytes=1300000-"), ("/big.bin", "bytes=2000000-")]
    assert server.sent == len(PAYLOAD)
    assert names_in(tmp_path) == ["big.bin"]


def test_a_download_that_gave_up_goes_on_with_the_same_command(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    server.breaks = [1_000_000, 0, 0]
    with pytest.raises(
        InputError, match="got 1,000,000 bytes and then: the connection broke; run the same command again"
    ):
        download(card, tmp_path)
    assert names_in(tmp_path) == ["big.bin.part"]
    download(card, tmp_path)
    assert server.gets()[-1] == ("/big.bin", "bytes=1000000-")
    assert server.sent == len(PAYLOAD)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    server.ranges, server.breaks = False, [1_300_000]
    download(card, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD
    assert server.sent == len(PAYLOAD) + 1_300_000


def test_a_whole_part_that_was_never_checked_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """As a process leaves it that was killed while it computed the checksum."""
    card = make_card(server, {"big.bin": PAYLOAD})
    (tmp_path / "big.bin.part").write_bytes(PAYLOAD)
    download(card, tmp_path)
    assert server.gets() == [("/big.bin", f"bytes={len(PAYLOAD)}-")]
    assert server.sent == 0
    assert names_in(tmp_path) == ["big.bin"]
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD


def test_a_part_that_is_too_long_starts_over(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    (tmp_path / "big.bin.part").write_bytes(PAYLOAD + b"more")
    download(card, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD


def test_a_wrong_checksum_names_both_and_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"a.zip": zip_of({"1.wav": b"one"})})
    expected, wrong = card["files"][0]["checksum"], zip_of({"1.wav": b"other"})
    server.files["/a.zip"] = wrong
    with pytest.raises(
        InputError, match=rf"a\.zip must have the checksum {expected}, got md5:{hashlib.md5(wrong).hexdigest()};"
    ):
        download(card, tmp_path)
    assert names_in(tmp_path) == []
    server.files["/a.zip"] = zip_of({"1.wav": b"one"})
    download(card, tmp_path)
    assert server.gets() == [("/a.zip", None)] * 2


def test_a_file_there_with_another_checksum_is_fetched_anew_and_said(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    (tmp_path / "big.bin").write_bytes(PAYLOAD[:1000])
    said = download(card, tmp_path)
    assert any("does not have the checksum" in line for line in said)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD


def test_a_file_without_a_published_checksum_has_it_recorded_and_compared_later(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"table.csv": b"itemid\n1\n", "a.zip": zip_of({"1.wav": b"one"})}, checksum=None)
    said = download(card, tmp_path)
    record = json.loads((tmp_path / "checksums.json").read_text())
    assert record == {
        name: f"sha256:{hashlib.sha256(server.files['/' + name]).hexdigest()}" for name in ("table.csv", "a.zip")
    }
    assert sum("no published checksum" in line for line in said) == 2
    before = len(server.gets())
    download(card, tmp_path)
    assert len(server.gets()) == before
    (tmp_path / "table.csv").unlink()
    server.files["/table.csv"] = b"itemid\n2\n"
    with pytest.raises(InputError, match=rf"table\.csv must have the checksum {record['table.csv']}.*checksums\.json"):
        download(card, tmp_path)
    assert not (tmp_path / "table.csv").exists()


def test_a_missing_file_is_not_asked_for_twice(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"a.zip": b""})
    del server.files["/a.zip"]
    with pytest.raises(InputError, match=r"the server must have http.*/a\.zip, got 404"):
        download(card, tmp_path)
    assert len(server.gets()) == 1


def test_a_busy_server_is_asked_again_and_a_web_page_is_no_file(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    server.answers = [503, 429]
    download(card, tmp_path / "busy")
    assert (tmp_path / "busy" / "big.bin").read_bytes() == PAYLOAD
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="must be a file, got a web page"):
        download(card, tmp_path / "page")


def test_a_server_that_is_away_is_an_error_that_says_to_run_it_again(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"a.zip": b"", "b.zip": b""})
    for file in card["files"]:
        file["url"] = "http://127.0.0.1:9/" + file["name"]
    with pytest.raises(InputError, match=r"got 0 bytes and then: .*refused.*; run the same command again"):
        download(card, tmp_path)


def test_redirects_and_answers_without_a_length_are_fine(server: Server, tmp_path: Path) -> None:
    card = make_card(server, {"big.bin": PAYLOAD})
    card["files"][0]["url"] = f"{server.url}/moved/big.bin"
    server.lengths = False
    download(card, tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == PAYLOAD


def test_too_little_room_is_an_error_with_both_numbers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = make_card(server, {"a.zip": PAYLOAD, "b.zip": PAYLOAD}, unpacked_gb=0.002)
    usage = shutil.disk_usage(tmp_path)._replace(free=9_000_000)
    monkeypatch.setattr("audiostride.dataset.download.shutil.disk_usage", lambda _: usage)
    message = r"must have 0\.01 GB free \(6\.00 MB to download and 4\.00 MB unpacked\), got 9\.00 MB"
    with pytest.raises(InputError, match=message):
        download(card, tmp_path)
    assert server.gets() == []
    # What is there already need not be fetched, and a server without lengths leaves the card's 0.5 GB.
    (tmp_path / "a.zip.part").write_bytes(PAYLOAD[:2_000_000])
    usage = usage._replace(free=7_999_999)
    with pytest.raises(InputError, match=r"must have 8\.00 MB free \(4\.00 MB to download"):
        download(card, tmp_path)
    server.head = False
    with pytest.raises(InputError, match=r"1\.00 GB to download"):
        download(card, tmp_path)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_an_unpacking_that_was_killed_is_done_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    members = {f"wav/{number}.wav": bytes(100 + number) for number in range(5)}
    archive, module = (zip_of(members), zipfile.ZipFile) if kind == "a.zip" else (tar_of(members), tarfile.TarFile)
    card = make_card(server, {kind: archive})

    def killed(opened: Any, member: Any, folder: Path, **_: Any) -> None:
        (Path(folder) / "wav").mkdir()
        (Path(folder) / "wav" / "0.wav").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "extract", killed)
        with pytest.raises(KeyboardInterrupt):
            download(card, tmp_path)
    assert not (tmp_path / f"{kind}.unpacked").exists()
    download(card, tmp_path)
    assert {f"wav/{path.name}": path.read_bytes() for path in (tmp_path / "wav").iterdir()} == members
    assert len(server.gets()) == 1


@pytest.mark.parametrize("member", ["../evil.wav", "/evil.wav", "wav/../../evil.wav"])
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_nothing_is_unpacked_outside_of_the_folder(server: Server, tmp_path: Path, member: str, pack: Any) -> None:
    name = "a.zip" if pack is zip_of else "a.tar.gz"
    card = make_card(server, {name: pack({member: b"x"})}, unpack_to="inner")
    if (pack, member) == (tar_of, "/evil.wav"):
        download(card, tmp_path)  # tarfile takes the leading slash away
        assert names_in(tmp_path / "inner") == ["evil.wav"]
        return
    with pytest.raises(InputError, match="plain files below its folder, got"):
        download(card, tmp_path)
    assert not list(tmp_path.rglob("evil.wav"))
    assert not list(tmp_path.parent.glob("evil.wav"))


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_an_archive_that_breaks_off_is_removed_and_not_recorded(server: Server, tmp_path: Path, kind: str) -> None:
    pack = zip_of if kind == "a.zip" else tar_of
    whole = pack({"1.wav": PAYLOAD})
    card = make_card(server, {kind: whole[:-100_000]}, checksum=None)
    with pytest.raises(InputError, match="must be a whole archive"):
        download(card, tmp_path)
    assert not (tmp_path / kind).exists()
    assert not (tmp_path / "checksums.json").exists()
    server.files[f"/{kind}"] = whole
    download(card, tmp_path)
    assert (tmp_path / "1.wav").read_bytes() == PAYLOAD


def test_a_card_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must have files on its card, got none for ripples"):
        download_archives({"name": "ripples"}, tmp_path)


def break_zip(content: bytes, *, flag: int = 0, method: int = 8) -> bytes:
    """A zip archive whose members claim other flags or another compression, in both places where they stand."""
    changed = bytearray(content)
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.index(mark)
        changed[place + flags] |= flag
        changed[place + flags + 2] = method
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encrypted.zip", lambda: break_zip(zip_of({"1.wav": PAYLOAD}), flag=1)),
        ("patched.zip", lambda: break_zip(zip_of({"1.wav": PAYLOAD}), flag=32)),
        ("strong.zip", lambda: break_zip(zip_of({"1.wav": PAYLOAD}), flag=64)),
        ("unknown.zip", lambda: break_zip(zip_of({"1.wav": PAYLOAD}), method=77)),
        ("other.tar.gz", lambda: b"\x1f\x8b\x07" + tar_of({"1.wav": PAYLOAD})[3:]),
        ("empty.tar.gz", lambda: b"\x1f\x8b"),
    ],
)
def test_a_broken_archive_is_told_and_removed_whatever_it_breaks(
    tmp_path: Path, name: str, change: Callable[[], bytes]
) -> None:
    (tmp_path / name).write_bytes(change())
    with pytest.raises(InputError, match=r"must be a whole archive, got one that cannot be unpacked: .*it is removed"):
        unpack(tmp_path / name, tmp_path / "unpacked")
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_full_disk_does_not_cost_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes((zip_of if name == "a.zip" else tar_of)({"1.wav": PAYLOAD}))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", fail)
    monkeypatch.setattr(tarfile.TarFile, "extract", fail)
    with pytest.raises(InputError, match="writing failed: No space left on device; make room there"):
        unpack(tmp_path / name, tmp_path / "unpacked")
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"checksums\.json: its content must be a table, got \[\]; mend or remove it"),
        ('{"a.csv": 1}', r"a\.csv'\] must be text, got 1"),
        ('{"a.csv": "x"}', r"must hold checksums such as md5:0123abcd, got 'x' of a\.csv"),
    ],
)
def test_recorded_checksums_that_are_none_are_refused(
    server: Server, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "checksums.json").write_text(content)
    with pytest.raises(InputError, match=message):
        download(make_card(server, {"a.csv": b"path,label\n"}, checksum=None), tmp_path)

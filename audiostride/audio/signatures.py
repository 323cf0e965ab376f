"""What a file is that libsndfile does not read, by its first bytes."""

import re
from pathlib import Path

_FETCH = "fetch the file itself again"
COPY = "copy it again"
CONVERT = "convert it to WAV or FLAC, or install ffmpeg"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a git-lfs pointer and not the file itself", "run: git lfs pull"),
    (rb"\s*<(?i:!doctype html|html|head|body)", "a web page (HTML)", _FETCH),
    (rb"\s*<[?a-zA-Z!]", "XML or HTML text", _FETCH),
    (rb"\0\x05\x16[\0\x07]", "the companion that macOS writes beside a file (AppleDouble)", "leave it out"),
    (rb"PK\x03\x04|7z\xbc\xaf|Rar!|\x1f\x8b|BZh|\xfd7zXZ", "a packed archive", "unpack it first"),
    (rb"....ftyp|....moov|....mdat", "MP4 (M4A, AAC, ALAC or a film)", CONVERT),
    (rb"\x1a\x45\xdf\xa3", "Matroska or WebM", CONVERT),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (WMA, ASF)", CONVERT),
    (rb"RIFF....AVI |FLV\x01|\0\0\x01\xba", "a film (AVI, Flash or MPEG)", CONVERT),
    (rb"#!AMR", "AMR speech", CONVERT),
    (rb"wvpk|MAC |TTA1|DSD |FRM8|\xff[\xf1\xf9]|ADIF|MPCK|MP\+", "audio of a codec that libsndfile lacks", CONVERT),
    (rb"OggS", "Ogg that is damaged, or of a codec that libsndfile lacks", f"{COPY}, or {CONVERT}"),
    (rb"RF64|BW64|RIFF|RIFX|FORM|caff|riff|\.snd|fLaC|ID3", "audio that is damaged or of a rare encoding",
     f"{COPY}, or {CONVERT}"),
    (rb"MThd", "MIDI, which holds notes and no sound", "leave it out"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF", "a picture or a PDF", _FETCH),
    (rb"\x93NUMPY|\x89HDF|SQLite format", "an array or a database", "write its audio as WAV or FLAC"),
)  # fmt: skip


def identify(path: str | Path) -> tuple[str, str]:
    """What a file is by its first bytes, and what to do; two empty texts where they do not say."""
    with open(path, "rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf")
    for magic, what, advice in _KINDS:
        if re.match(magic, head, re.DOTALL):
            return what, advice
    if head and not any(head):
        return "zeros", COPY
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        return f"text, beginning with {text.strip()[:30]!r}", _FETCH
    return "", ""

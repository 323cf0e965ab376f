"""One walk over folders for all commands: what is taken, what is left out and said, and what may not be read."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from audiostride.wording import count_of, escape, name_some

# What libsndfile reads; M4A with ffmpeg.
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".m4a", ".sph"),
)

# Other audio and video, which ffmpeg may read where a file is named itself.
OTHER_SUFFIXES = re.compile(
    r"\.(3g2|3gp|aac|ac3|amr|ape|asf|avi|awb|dff|divx|dsf|dss|dts|eac3|f4v|flv|gsm|m2ts|m4b|m4r|m4v|mka|mkv|mov|mp1|mp2"
    r"|mp4|mpa|mpc|mpeg|mpg|mts|ogv|ogx|pcm|qt|ra|ram|raw|rm|shn|spx|tak|tta|vob|voc|vox|wac|weba|webm|wma|wmv|wv)$",
    re.IGNORECASE,
)

# What systems and servers put beside recordings, as macOS does ._NAME: never content, so that nobody need hear of it.
COMPANIONS = {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"}
COMPANIONS |= {".DS_Store", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems"}

# Names and labels with these cannot be written down so that every table gives them back: bytes that are not UTF-8,
# line breaks, tabs and other control characters.
UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def is_audio(name: str | Path) -> bool:
    """Whether a name has a suffix of audio that is taken."""
    return str(name).lower().endswith(AUDIO_SUFFIXES)


def find_name_fault(path: str, what: str = "audio file") -> str | None:
    """Why a file or folder cannot be named in tables, if it cannot."""
    if not UNWRITABLE.search(path):
        return None
    return f"{what} {escape(path)} must have a name in UTF-8 without control characters; rename it"


def describe_not_taken(names: Iterable[str]) -> list[str]:
    """A line on those of some file names that end like audio or video and are not taken, if there are any."""
    counts = Counter(found[0].lower() for name in names if (found := OTHER_SUFFIXES.search(name)))
    if not counts:
        return []
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
    what = count_of(counts.total(), "file")
    return [f"{what} of audio or video left out: {listed}; convert them to WAV or FLAC, or name them in a manifest"]


def list_folder(folder: str | Path) -> tuple[list[tuple[str, bool]], list[str]]:
    """Names in a folder without companions: of folders, and whether they are links; of files and of links to nothing.

    Raises:
        OSError: It cannot be read.
    """
    folders: list[tuple[str, bool]] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in COMPANIONS or entry.name.startswith("._"):
                continue
            linked = entry.is_symlink()
            # isdir, unlike the entry, knows links that lead round in a circle.
            if os.path.isdir(entry.path) if linked else entry.is_dir():
                folders.append((entry.name, linked))
            elif (os.path.isfile(entry.path) or not os.path.exists(entry.path)) if linked else entry.is_file():
                files.append(entry.name)
    return sorted(folders), sorted(files)


@dataclass
class FolderWalk:
    """What lies at any depth below a folder. Names are relative to it, with slashes, in the order of their parts."""

    root: str
    """The folder."""
    folders: list[str] = field(default_factory=list)
    """Folders that are looked into, each once."""
    files: list[str] = field(default_factory=list)
    """Files of any kind; links that lead to nothing count as files."""
    faults: dict[str, str] = field(default_factory=dict)
    """Folders that cannot be read and audio files that cannot be named (absolute or as the root is), with messages."""
    hidden: list[str] = field(default_factory=list)
    """Folders with a leading dot or underscore, and audio files with a leading dot."""
    again: list[str] = field(default_factory=list)
    """Linked folders that are there already, or lead back up."""

    @property
    def audio(self) -> list[str]:
        """The audio files that are taken."""
        return [name for name in self.files if is_audio(name) and os.path.join(self.root, name) not in self.faults]

    def notes(self) -> list[str]:
        """A line on each kind of what is left out."""
        notes = describe_not_taken(self.files)
        if self.hidden:
            way_out = "name a folder itself, or rename it, to take what is in it"
            notes.append(f"names with a leading dot or underscore left out: {name_some(self.hidden)}; {way_out}")
        if self.again:
            notes.append(f"linked folders that are there already or lead back up left out: {name_some(self.again)}")
        return [f"{escape(self.root)}: {note}" for note in notes]


def walk_folder(root: str | Path) -> FolderWalk:
    """All folders and files below a folder; those that are hidden or companions of others are left out.

    Folders and files of the tree itself come first, so that a link to one of them gives nothing a second name. Linked
    folders are followed once. What vanishes on the way is not there.
    """
    walk = FolderWalk(str(root))
    top = os.path.realpath(root)
    waiting, linked = deque([("", top)]), deque[tuple[str, str]]()
    seen: set[str] = set()
    while waiting or linked:
        inner, real = (waiting or linked).popleft()
        if real in seen or (inner and os.path.join(top, "").startswith(os.path.join(real, ""))):
            walk.again.append(inner)
            continue
        seen.add(real)
        if inner:
            walk.folders.append(inner)
        folder = os.path.join(root, inner) if inner else walk.root
        try:
            folders, files = list_folder(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            walk.faults[folder] = f"folder {escape(folder)} cannot be read: {error.strerror}"
            continue
        inner = inner and f"{inner}/"
        for name, is_link in folders:
            if name.startswith((".", "_")):
                walk.hidden.append(f"{inner}{name}/")
            elif is_link:
                linked.append((inner + name, os.path.realpath(os.path.join(folder, name))))
            else:
                waiting.append((inner + name, os.path.join(real, name)))
        for name in files:
            path = os.path.join(folder, name)
            if name.startswith("."):
                walk.hidden += [inner + name] if is_audio(name) else []
                continue
            walk.files.append(inner + name)
            if is_audio(name) and (fault := find_name_fault(path)):
                walk.faults[path] = fault
    for names in (walk.folders, walk.files):
        names.sort(key=lambda name: name.split("/"))
    return walk

"""Importers: from the archives as distributed, anyone's folder, or annotations of recordings, to a manifest."""

from pathlib import Path

from audiostride.dataset.cards import read_card
from audiostride.dataset.importers.annotation_files import READERS
from audiostride.dataset.importers.annotations import AnnotationSettings, import_annotations
from audiostride.dataset.importers.dcase_birds import import_dcase_birds
from audiostride.dataset.importers.folder import import_folder
from audiostride.dataset.importers.imported import Imported, write_manifest
from audiostride.dataset.importers.nsynth import import_nsynth
from audiostride.dataset.importers.speech_commands import import_speech_commands
from audiostride.dataset.importers.tut_urban import import_tut_urban
from audiostride.errors import InputError

__all__ = ["ANNOTATIONS", "ARCHIVES", "FOLDER", "SCHEMES", "AnnotationSettings", "Imported"]
__all__ += ["import_annotations", "import_clips", "write_manifest"]

ARCHIVES = {
    "tut-urban-2018": import_tut_urban,
    "dcase2018-birds": import_dcase_birds,
    "nsynth": import_nsynth,
    "speech-commands": import_speech_commands,
}
FOLDER = "folder"
ANNOTATIONS = tuple(READERS)
SCHEMES = ("official", "paper-like")


def import_clips(name: str, root: str | Path, *, splits: str = "official", seed: int = 0) -> Imported:
    """The clips of a data set that lies on disk; no audio is read.

    Args:
        name: A data set with a card that can be downloaded, or ``folder``.
        root: Where its archives were unpacked; one level too high or too low is found.
        splits: ``official``, exactly as distributed, or ``paper-like``, a seeded hash with the paper's sizes.
        seed: Of the paper-like split.

    Raises:
        InputError: An unknown name or scheme, or metadata that the import cannot do without.
    """
    if splits not in SCHEMES:
        raise InputError(f"import_clips: splits must be {' or '.join(SCHEMES)}, got {splits!r}")
    if name == FOLDER:
        return import_folder(Path(root), splits=splits, seed=seed)
    if name not in ARCHIVES:
        raise InputError(f"import_clips: name must be one of {', '.join([*ARCHIVES, FOLDER])}, got {name!r}")
    return ARCHIVES[name](Path(root), read_card(name), splits=splits, seed=seed)

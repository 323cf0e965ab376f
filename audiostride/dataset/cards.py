"""Data-set cards: what a data set is, where it comes from, its tasks and counts, as TOML files."""

import tomllib
from pathlib import Path
from typing import Any

from audiostride.errors import InputError


def card_folder() -> Path:
    """The folder of cards: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "data_manifests"
    return installed if installed.is_dir() else package.parent / "data_manifests"


def read_card(name: str) -> dict[str, Any]:
    """The card of a data set.

    Raises:
        InputError: There is no such card.
    """
    file = card_folder() / f"{name}.toml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in card_folder().glob("*.toml")))
        raise InputError(f"read_card: name must be one of {known}, got {name!r}")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def list_cards() -> list[dict[str, Any]]:
    """All cards, by name."""
    return [read_card(path.stem) for path in sorted(card_folder().glob("*.toml"))]

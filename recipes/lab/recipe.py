"""What a recipe says: data set, label column, settings, and the paper's figures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, get_args

from audiostride.checks import Pooling, check_choice
from audiostride.dataset.importers import ARCHIVES, SCHEMES
from audiostride.errors import InputError
from audiostride.training.config import TrainConfig

POOLINGS: tuple[str, ...] = get_args(Pooling)

# What the pipeline gives to every run itself.
TAKEN = ("manifest", "task", "out", "label", "audio_root", "pooling", "seed", "on_error")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An experiment on one data set and one column of labels.

    Raises:
        InputError: A data set without an importer, an unknown scheme or pooling, a setting that training does not have.
    """

    name: str
    """Name of the recipe's file, without its suffix; also of its folder of runs."""
    head: str
    """The recipe's docstring, which ``--help`` shows: data, command, expected result, hardware, time."""
    data: str
    """Name of the data set's card."""
    label: str
    """Column of the manifest with the labels."""
    paper: Mapping[str, str]
    """The paper's test accuracy in % of each pooling, single-task, with its standard deviation: ``"87.3 (0.1)"``."""
    splits: str = "official"
    """Split scheme: official, or paper-like."""
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of `TrainConfig` that differ from its defaults."""

    def __post_init__(self) -> None:
        who = f"recipe {self.name}"
        check_choice(who, "data", self.data, ARCHIVES)
        check_choice(who, "splits", self.splits, SCHEMES)
        for pooling in self.paper:
            check_choice(who, "paper", pooling, POOLINGS)
        check_settings(who, self.settings)

    @property
    def expected(self) -> str:
        """What the head says of the expected result, in one line."""
        found = re.search(r"^Expected: (.*?)(?=^\w+: |\Z)", self.head, flags=re.MULTILINE | re.DOTALL)
        return " ".join(found[1].split()) if found else ""


def check_settings(who: str, settings: Mapping[str, Any]) -> None:
    """Raise unless training has these settings, and the pipeline leaves them free."""
    free = [entry.name for entry in fields(TrainConfig) if entry.name not in TAKEN]
    for name in settings:
        if name not in free:
            raise InputError(f"{who}: settings must be among {', '.join(free)}, got {name!r}")

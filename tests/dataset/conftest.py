"""The miniature archives, for the tests of this folder and of those that load this file."""

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tut_root(archives: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of TUT Urban Acoustic Scenes 2018 with sounds: 40 train and 20 evaluate clips. Not to be changed."""
    return Path(archives.build_tut(tmp_path_factory.mktemp("tut")))


@pytest.fixture(scope="session")
def birds_root(archives: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of the three bird sets with sounds: 12, 8 and 12 clips. Not to be changed."""
    return Path(archives.build_birds(tmp_path_factory.mktemp("birds")))


@pytest.fixture(scope="session")
def nsynth_root(archives: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of NSynth with sounds: 33, 30 and 30 notes. Not to be changed."""
    return Path(archives.build_nsynth(tmp_path_factory.mktemp("nsynth")))


@pytest.fixture(scope="session")
def speech_root(archives: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Speech Commands with sounds: 35 words, 105, 35 and 35 clips. Not to be changed."""
    return Path(archives.build_speech(tmp_path_factory.mktemp("speech")))

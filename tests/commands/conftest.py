"""The miniature archives of tests/data, whose builders are loaded by path since tests are no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def archives() -> ModuleType:
    """The builders: build_tut, build_birds, build_nsynth, build_speech."""
    file = Path(__file__).parent.parent / "data" / "archives.py"
    specification = importlib.util.spec_from_file_location("archives", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module

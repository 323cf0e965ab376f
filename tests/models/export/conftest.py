"""Exports that are not timed for long."""

import pytest


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are medians of three calls: nothing here depends on them."""
    monkeypatch.setattr("audiostride.models.export.parity.SECONDS", 0.0)

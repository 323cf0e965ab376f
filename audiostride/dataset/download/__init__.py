"""Downloading the archives that a data-set card names."""

from audiostride.dataset.download.download import download_archives

__all__ = ["download_archives"]

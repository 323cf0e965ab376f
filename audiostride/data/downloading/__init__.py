"""Downloading the archives that a data-set card names."""

from audiostride.data.downloading.download import download_archives

__all__ = ["download_archives"]

"""A trained classifier as files that other programs run."""

from audiostride.models.export.files import Exported, export_classifier
from audiostride.models.export.programs import export_metadata

__all__ = ["Exported", "export_classifier", "export_metadata"]

"""Learnable strides in any network: `convert_downsampling` and what it needs."""

from audiostride.models.conversion.convert import convert_downsampling
from audiostride.models.conversion.freezing import freeze_downsampling

__all__ = ["convert_downsampling", "freeze_downsampling"]

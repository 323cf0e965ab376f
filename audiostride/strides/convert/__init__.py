"""Learnable strides in any network: `convert_downsampling` and what it needs."""

from audiostride.strides.convert.budget import network_budget
from audiostride.strides.convert.convert import convert_downsampling
from audiostride.strides.convert.freezing import freeze_downsampling

__all__ = ["convert_downsampling", "freeze_downsampling", "network_budget"]

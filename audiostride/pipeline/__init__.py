"""From the archive of a data set to the report of its runs: what the recipes call."""

from audiostride.pipeline.program import main, run_pipeline
from audiostride.pipeline.recipe import POOLINGS, Recipe

__all__ = ["POOLINGS", "Recipe", "main", "run_pipeline"]

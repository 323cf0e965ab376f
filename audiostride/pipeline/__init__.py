"""From the archive of a data set to the report of its runs: what the recipes call."""

from audiostride.pipeline.cost_sweep import main_costs
from audiostride.pipeline.from_runs import main_table
from audiostride.pipeline.imagenet import main_images
from audiostride.pipeline.program import main, run_pipeline
from audiostride.pipeline.random_strides import main_random_strides
from audiostride.pipeline.recipe import POOLINGS, Recipe
from audiostride.pipeline.several import SeveralRecipe, main_several

__all__ = [
    "POOLINGS",
    "Recipe",
    "SeveralRecipe",
    "main",
    "main_costs",
    "main_images",
    "main_random_strides",
    "main_several",
    "main_table",
    "run_pipeline",
]

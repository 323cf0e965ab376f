"""From the archive of a data set to the report of its runs: what the recipes call."""

from lab.cost_sweep import main_costs
from lab.from_runs import main_table
from lab.imagenet import main_images
from lab.program import main, run_pipeline
from lab.random_strides import main_random_strides
from lab.recipe import POOLINGS, Recipe
from lab.several import SeveralRecipe, main_several

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

"""Acoustic scenes: TUT Urban Acoustic Scenes 2018, ten scenes in six cities; strided, spectral, DiffStride.

Data: 8,640 clips of 10 s, free for non-commercial use; 21.4 GB to download, 24.9 GB unpacked, a store of 2.8 GB.
    --download fetches them to ROOT; what is there already is not fetched again.
Command: python recipes/tut_urban.py ROOT --download
Expected: not run on the full archive yet. The official split is fold 1, whose places are unseen in test; the paper's
    split is of all clips, whose places leak, and so is --splits paper-like: expect the paper's figures there only.
Hardware: settings for a GPU: the package's defaults, 20,000 steps; not the paper's 1 M steps of 256 excerpts at 1e-4.
    On a CPU: --width 0.25 --max-steps 400.
Time: --smoke 12 s (one thread, beside other jobs); the full archive not run yet.
"""

import sys

from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="tut_urban",
    head=__doc__,
    data="tut-urban-2018",
    label="label",
    paper={"strided": "99.1 (0.2)", "spectral": "98.6 (0.1)", "diffstride": "98.6 (0.2)"},
    settings={"max_steps": 20_000, "valid_every": 1_000},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))

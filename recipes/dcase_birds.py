"""Bird or no bird: DCASE 2018 bird audio detection, three sets of field recordings; strided, spectral, DiffStride.

Data: 35,690 clips of mostly 10 s, Creative Commons; 25.5 GB to download, 31.6 GB unpacked, a store of 11.4 GB.
    --download fetches them to ROOT; what is there already is not fetched again.
Command: python recipes/dcase_birds.py ROOT --download
Expected: not run on the full archive yet. The official scheme leaves a set out (warblrb10k is test), as the challenge
    did; the paper's split is of all clips, and so is --splits paper-like: expect the paper's figures there only.
Hardware: settings for a GPU: the package's defaults, 20,000 steps; not the paper's 1 M steps of 256 excerpts at 1e-4.
    On a CPU: --width 0.25 --max-steps 400.
Time: --smoke 10 s (one thread, beside other jobs); the full archive not run yet.
"""

import sys

from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="dcase_birds",
    head=__doc__,
    data="dcase2018-birds",
    label="label",
    paper={"strided": "78.8 (0.3)", "spectral": "79.7 (0.3)", "diffstride": "81.3 (0.1)"},
    settings={"max_steps": 20_000, "valid_every": 1_000},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))

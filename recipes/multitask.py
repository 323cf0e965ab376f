"""Five tasks at once, one encoder with a head for each: scenes, birds, instruments, pitch, words; the paper's Table 1.

Data: the four archives of the single-task recipes, 74.7 GB to download, 99.7 GB unpacked, stores of 56.8 GB, which are
    those of the single-task recipes. --download fetches them to the folders given; --tasks learns fewer.
Command: python recipes/multitask.py --tut DIR --birds DIR --nsynth DIR --speech DIR --download
Expected: not run on the full archives yet. The paper's figures beside the table are of its own splits, which were not
    published; --splits paper-like draws some of those sizes.
Hardware: settings for a GPU: 30,000 steps of 160 excerpts, 32 for each task as in the single-task recipes; not the
    paper's 1 M steps of 256 at 1e-4. On a CPU: --width 0.25 --max-steps 400.
Time: --smoke 33 s (one thread, beside other jobs); the full archives not run yet.
"""

import sys

from lab.program import POOLINGS
from lab.several import SeveralRecipe, main_several
from lab.tables import format_poolings

RECIPE = SeveralRecipe(
    name="multitask",
    head=__doc__,
    variants={pooling: {"pooling": pooling} for pooling in POOLINGS},
    table=format_poolings,
    settings={"max_steps": 30_000, "valid_every": 2_000, "batch_size": 160, "time_shift_s": 0.1},
)

if __name__ == "__main__":
    sys.exit(main_several(RECIPE))

"""One learned stride for both axes of a layer against one per axis, five tasks at once; the paper's Table A.7.

Data: as multitask.py, whose manifests and stores it shares.
Command: python recipes/shared_stride.py --tut DIR --birds DIR --nsynth DIR --speech DIR --download
Expected: not run on the full archives yet. The paper's figures beside the table are of its own splits, which were not
    published; --splits paper-like draws some of those sizes.
Hardware: settings for a GPU, as multitask.py: 30,000 steps of 160 excerpts. On a CPU: --width 0.25 --max-steps 400.
Time: --smoke 29 s (one thread, beside other jobs); the full archives not run yet.
"""

import sys

from lab.several import SeveralRecipe, main_several
from lab.tables import format_shared

RECIPE = SeveralRecipe(
    name="shared_stride",
    head=__doc__,
    variants={
        "shared": {"pooling": "diffstride", "shared_strides": True},
        "per_axis": {"pooling": "diffstride", "shared_strides": False},
    },
    table=format_shared,
    settings={"max_steps": 30_000, "valid_every": 2_000, "batch_size": 160, "time_shift_s": 0.1},
)

if __name__ == "__main__":
    sys.exit(main_several(RECIPE))

"""Accuracy against cost: a sweep of the weight lambda of the paper's cost regulariser (eq. 6), as in its Figure 4.

Data: Speech Commands v0.02, as speech_commands.py, whose manifest and store it shares; or with --manifest any manifest
    with a train/valid/test split.
Command: python recipes/cost_accuracy.py ROOT --download
    python recipes/cost_accuracy.py --manifest MANIFEST --label COLUMN --width 0.25 --max-steps 400 --seeds 0
Expected: a table and a figure (figure.png, figure.svg): test accuracy, the regulariser's value and true multiply-adds
    for strided convolution, spectral pooling, and DiffStride with each lambda. Not run on the full archive yet; a small
    run stands in recipes/RESULTS.md. The paper's figure is of ImageNet, so that there are no figures to compare with.
Hardware: settings for a GPU: the package's defaults, 20,000 steps. On a CPU: --width 0.25 --max-steps 400. In narrow
    networks pooling weighs more: at its starting strides DiffStride takes 1.11 times the multiply-adds of strided
    convolution at width 1, 1.37 times at 0.25, 1.75 times at 0.125.
Time: --smoke 15 s (one thread, beside other jobs); the full archive not run yet. A finished run is not trained again.
"""

import sys

from lab import Recipe, main_costs

RECIPE = Recipe(
    name="cost_accuracy",
    head=__doc__,
    data="speech-commands",
    label="label",
    paper={},
    # As in speech_commands.py.
    settings={"max_steps": 20_000, "valid_every": 1_000, "time_shift_s": 0.1},
)

if __name__ == "__main__":
    sys.exit(main_costs(RECIPE))

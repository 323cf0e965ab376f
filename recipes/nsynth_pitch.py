"""Pitch: NSynth, MIDI pitch on instruments unseen in training; strided, spectral, DiffStride.

Data: 305,979 notes of 4 s, CC BY 4.0; 25.4 GB to download, 39.6 GB unpacked, a store of 39.2 GB, which is that of
    nsynth_instrument.py as well. --download fetches them to ROOT; what is there already is not fetched again.
Command: python recipes/nsynth_pitch.py ROOT --download
Expected: not run on the full archive yet. The official scheme tests on the 4,096 notes of nsynth-test; the paper on the
    12,678 of nsynth-valid, as --splits paper-like does: compare with the paper's figures there.
Hardware: settings for a GPU: the package's defaults, 30,000 steps; not the paper's 1 M steps of 256 excerpts at 1e-4.
    On a CPU: --width 0.25 --max-steps 400.
Time: --smoke 15 s (one thread, beside other jobs); the full archive not run yet.
"""

import sys

from lab.recipe import Recipe, main

RECIPE = Recipe(
    name="nsynth_pitch",
    head=__doc__,
    data="nsynth",
    label="pitch",
    paper={"strided": "91.8 (0.1)", "spectral": "90.1 (0.0)", "diffstride": "92.2 (0.1)"},
    settings={"max_steps": 30_000, "valid_every": 2_000},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))

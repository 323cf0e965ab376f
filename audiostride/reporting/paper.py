"""Table 2 of the paper, to stand beside the cut-offs of a first layer: Riad et al. 2022 (arXiv 2202.01653)."""

# Stride over time, over mel, cut-off in Hz, in cycles/mel: means over three runs, standard deviation in brackets.
TABLE_2 = {
    "scenes": ("1.89 (0.05)", "1.99 (0.03)", "26.25 (0.63)", "0.2448 (0.009)"),
    "birds": ("1.91 (0.02)", "1.96 (0.01)", "25.83 (0.36)", "0.2500 (0.000)"),
    "instrument": ("1.29 (0.06)", "2.12 (0.01)", "38.33 (1.57)", "0.2292 (0.009)"),
    "pitch": ("1.32 (0.10)", "1.61 (0.07)", "37.50 (2.72)", "0.3021 (0.018)"),
    "speech": ("1.97 (0.00)", "1.95 (0.01)", "25.00 (0.00)", "0.2500 (0.000)"),
    "multi-task": ("1.46 (0.01)", "1.79 (0.03)", "34.17 (0.30)", "0.2708 (0.0074)"),
}

# The paper rounds cut-offs down to a bin of windows of 1.6 s (160 frames) over time and of 64 bands over mel.
WINDOW_S = 1.6

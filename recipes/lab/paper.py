"""The paper's figures that the tables are compared with: Riad et al. 2022 (arXiv 2202.01653), as printed there.

Accuracies are those of test clips in %, with standard deviations over three runs in brackets.
"""

# Rows of Table 1, by the names used here.
TASKS = ("scenes", "birds", "instrument", "pitch", "speech")

# Data set's card and column of labels, as the importers write them.
COLUMNS = {
    "scenes": ("tut-urban-2018", "label"),
    "birds": ("dcase2018-birds", "label"),
    "instrument": ("nsynth", "instrument_family"),
    "pitch": ("nsynth", "pitch"),
    "speech": ("speech-commands", "label"),
}

# Table 1. The means are printed like this; those of the single-task columns are not the means of the five figures
# (85.9, 86.0 and 87.6), those of the multi-task columns are.
SINGLE = {
    "scenes": {"strided": "99.1 (0.2)", "spectral": "98.6 (0.1)", "diffstride": "98.6 (0.2)"},
    "birds": {"strided": "78.8 (0.3)", "spectral": "79.7 (0.3)", "diffstride": "81.3 (0.1)"},
    "instrument": {"strided": "72.6 (0.3)", "spectral": "72.9 (0.5)", "diffstride": "75.4 (0.0)"},
    "pitch": {"strided": "91.8 (0.1)", "spectral": "90.1 (0.0)", "diffstride": "92.2 (0.1)"},
    "speech": {"strided": "87.3 (0.1)", "spectral": "88.5 (0.3)", "diffstride": "90.5 (0.3)"},
    "mean": {"strided": "85.0", "spectral": "86.0", "diffstride": "88.3"},
}
MULTI = {
    "scenes": {"strided": "97.7 (0.4)", "spectral": "97.7 (0.7)", "diffstride": "97.7 (0.3)"},
    "birds": {"strided": "77.3 (0.2)", "spectral": "77.8 (0.3)", "diffstride": "78.6 (0.5)"},
    "instrument": {"strided": "69.8 (0.4)", "spectral": "70.4 (0.4)", "diffstride": "73.0 (0.8)"},
    "pitch": {"strided": "89.4 (0.3)", "spectral": "87.6 (0.7)", "diffstride": "89.9 (0.3)"},
    "speech": {"strided": "83.5 (0.6)", "spectral": "83.9 (0.4)", "diffstride": "86.2 (0.8)"},
    "mean": {"strided": "83.5", "spectral": "83.5", "diffstride": "85.0"},
}

# Table A.7, multi-task DiffStride: one stride for both axes of a layer, or one per axis.
SHARED = {
    "scenes": {"shared": "97.4", "per_axis": "97.7"},
    "birds": {"shared": "79.7", "per_axis": "78.6"},
    "instrument": {"shared": "70.7", "per_axis": "73.0"},
    "pitch": {"shared": "86.7", "per_axis": "89.9"},
    "speech": {"shared": "86.8", "per_axis": "86.2"},
    "mean": {"shared": "84.3", "per_axis": "85.0"},
}

"""The paper's Table 2 from run folders: learned strides of the first DiffStride layer and what it lets through.

Data: run folders of 'audiostride train' or of the recipes with pooling diffstride; others are not in the table.
    Those of shared_stride.py go apart: runs of one row may differ in their seeds only.
Command: python recipes/cutoff_report.py runs/{tut_urban,dcase_birds,nsynth_*,speech_commands,multitask}/official
Expected: a Markdown table of mean (sd) over runs, cut-offs as rate / (2 S) and as the paper has them, rounded down to a
    bin of 0.625 Hz (windows of 1.6 s) and 1/64 cycle/mel, the paper's figures in columns of their own. Not made from
    runs on the full archives yet.
Hardware: any.
Time: seconds; --smoke 16 s (one thread, beside other jobs).
"""

import sys

from lab.from_runs import main_table
from lab.tables import format_table_2

if __name__ == "__main__":
    sys.exit(main_table("cutoff_report", str(__doc__), format_table_2))

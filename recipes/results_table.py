"""The paper's Table 1 from run folders: test accuracy of each task and pooling, learned alone and with others.

Data: run folders of 'audiostride train' or of the recipes, in any number and order. Those of
    shared_stride.py go apart: runs of one cell may differ in their seeds only.
Command: python recipes/results_table.py runs/{tut_urban,dcase_birds,nsynth_*,speech_commands,multitask}/official
Expected: a Markdown table of mean (sd) in % over runs, their number and split scheme, the paper's figures in columns
    beside them. Not made from runs on the full archives yet.
Hardware: any.
Time: seconds; --smoke 15 s (one thread, beside other jobs).
"""

import sys

from lab.from_runs import main_table
from lab.tables import format_table_1

if __name__ == "__main__":
    sys.exit(main_table("results_table", str(__doc__), format_table_1))

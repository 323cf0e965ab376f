"""How much accuracy falls where test clips are quieter than those that were trained on.

Data: finished runs whose manifests are there; the test clips are those of their manifests, such as other speakers.
Command: python recipes/level_shift.py runs/words_seed0 runs/words_seed1 --levels 0 -10 -20 -30
Expected: see recipes/RESULTS.md; it takes a few seconds a run and level.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import soundfile

from audiostride.inference.evaluation import Evaluation
from audiostride.models import AudioClassifier, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.clips import LabelledClips, evaluate_clips, read_source
from lab.program import end_program, make_parser


def main() -> int:
    """Evaluate each run at each level, then print the table; the return value is the exit code."""
    parser = make_parser("level_shift", __doc__ or "")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders of one task")
    parser.add_argument(
        "--levels", type=float, nargs="+", default=[0.0, -10.0, -20.0, -30.0], help="gain of the test clips, in dB"
    )
    arguments = parser.parse_args()
    return end_program("level_shift", lambda: shift_levels([Path(run) for run in arguments.runs], arguments.levels))


def shift_levels(runs: list[Path], levels: list[float]) -> pd.DataFrame:
    """Evaluate each run at each level and print the table.

    Returns:
        Test accuracy in %, one row per run and one column per level.
    """
    rows = []
    for run in runs:
        config, model = TrainConfig.load(run), load_classifier(run)
        (source,) = config.sources()
        clips, _ = read_source(source, config)
        names, test = model.config.tasks, clips[clips["split"] == "test"]
        (data,) = LabelledClips.load(test, names, where="test clips", on_error=config.on_error).values()
        found = {f"{level:+g} dB": evaluate_at(model, data, level) for level in levels}
        rows.append({"run": run.name} | {name: 100 * result.accuracy for name, result in found.items()})
    table = pd.DataFrame(rows)
    mean = {"run": "mean"} | {name: table[name].mean() for name in table if name != "run"}
    print(pd.concat([table, pd.DataFrame([mean])]).to_string(index=False, float_format="{:.1f}".format))
    return table


def evaluate_at(model: AudioClassifier, clips: LabelledClips, level_db: float) -> Evaluation:
    """How a model of one task does on clips that are louder by so many dB.

    They go through files of 24 bits, as those of a recorder whose gain is turned down; nothing clips.

    Args:
        model: The classifier.
        clips: The clips as they are.
        level_db: Their gain.
    """
    sample_rate, reader, files = model.config.sample_rate, clips.reader, []
    with TemporaryDirectory(prefix="level_shift-") as folder:
        for index, n_samples in enumerate(reader.n_samples.tolist()):
            files.append(str(Path(folder) / f"{index}.wav"))
            changed = reader.read(index, 0, n_samples) * 10 ** (level_db / 20)
            soundfile.write(files[-1], np.clip(changed, -1, 1), sample_rate, subtype="PCM_24")
        table = clips.clips.assign(path=files, start_s=0.0, duration_s=np.nan)
        loaded = LabelledClips.load(table, model.config.tasks, where=f"test clips at {level_db:+g} dB", progress=False)
        (found,) = evaluate_clips(model, loaded, progress=False).values()
    return found


if __name__ == "__main__":
    sys.exit(main())

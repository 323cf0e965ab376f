"""How much accuracy falls where test clips are quieter or noisier than those that were trained on.

Data: finished runs whose manifests are there; the test clips are those of their manifests, such as other speakers.
    Noise: a folder of recordings of something else.
Command: python recipes/level_shift.py runs/words_seed0 runs/words_seed1 --noise scenes/audio --snrs 20 10
Expected: see recipes/RESULTS.md; it takes a few seconds a run and column.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from audiostride.dataset.noise import load_noise
from audiostride.inference.evaluation import Evaluation
from audiostride.models import AudioClassifier, load_classifier
from audiostride.training import TrainConfig
from audiostride.training.clips import LabelledClips, evaluate_clips
from audiostride.training.sources import read_source
from lab.program import end_program, make_parser

Samples = NDArray[np.float32]


def main() -> int:
    """Evaluate each run at each level, then print the table; the return value is the exit code."""
    parser = make_parser("level_shift", __doc__ or "")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders of one task")
    parser.add_argument(
        "--levels", type=float, nargs="+", default=[0.0, -10.0, -20.0, -30.0], help="gain of the test clips, in dB"
    )
    parser.add_argument("--noise", metavar="FOLDER", help="recordings that test clips are mixed with, or synthetic")
    parser.add_argument(
        "--snrs", type=float, nargs="+", default=[20.0, 10.0], help="level of the clips over that of the noise, in dB"
    )
    arguments = parser.parse_args()
    snrs = arguments.snrs if arguments.noise else []
    return end_program(
        "level_shift",
        lambda: shift_levels([Path(run) for run in arguments.runs], arguments.levels, arguments.noise, snrs),
    )


def shift_levels(runs: list[Path], levels: list[float], noise: str | None, snrs: list[float]) -> pd.DataFrame:
    """Evaluate each run at each level, and with noise at each ratio to it, and print the table.

    Returns:
        Test accuracy in %, one row per run and one column per level and ratio.
    """
    rows = []
    for run in runs:
        config, model = TrainConfig.load(run), load_classifier(run)
        (source,) = config.sources()
        clips, _ = read_source(source, config)
        names, test = model.config.tasks, clips[clips["split"] == "test"]
        (data,) = LabelledClips.load(test, names, where="test clips", on_error=config.on_error).values()
        found = {f"{level:+g} dB": evaluate_changed(model, data, partial(amplify, level_db=level)) for level in levels}
        if noise is not None:
            pieces = load_noise(noise, seed=0, sample_rate=model.config.sample_rate)
            for snr in snrs:
                change = partial(add_noise, pieces=pieces, snr_db=snr)
                found[f"SNR {snr:g} dB"] = evaluate_changed(model, data, change)
        rows.append({"run": run.name} | {name: 100 * result.accuracy for name, result in found.items()})
    table = pd.DataFrame(rows)
    mean = {"run": "mean"} | {name: table[name].mean() for name in table if name != "run"}
    print(pd.concat([table, pd.DataFrame([mean])]).to_string(index=False, float_format="{:.1f}".format))
    return table


def amplify(samples: Samples, index: int, *, level_db: float) -> Samples:
    """A clip that is louder by so many dB."""
    return samples * np.float32(10 ** (level_db / 20))


def add_noise(samples: Samples, index: int, *, pieces: Samples, snr_db: float) -> Samples:
    """A clip with a piece of noise, its own one and the same in every run; the ratio is that of the rms of both."""
    rng = np.random.default_rng(index)
    piece = np.resize(np.roll(pieces[rng.integers(len(pieces))], rng.integers(pieces.shape[1])), len(samples))
    return samples + piece * np.sqrt(np.mean(samples**2) / np.mean(piece**2)) * np.float32(10 ** (-snr_db / 20))


def evaluate_changed(
    model: AudioClassifier, clips: LabelledClips, change: Callable[[Samples, int], Samples]
) -> Evaluation:
    """How a model of one task does on clips that are changed.

    They go through files of 24 bits, as those of a recorder whose gain is turned down.

    Args:
        model: The classifier.
        clips: The clips as they are.
        change: From the samples and the number of a clip to what is heard.
    """
    sample_rate, reader, files = model.config.sample_rate, clips.reader, []
    with TemporaryDirectory(prefix="level_shift-") as folder:
        for index, n_samples in enumerate(reader.n_samples.tolist()):
            files.append(str(Path(folder) / f"{index}.wav"))
            changed = change(reader.read(index, 0, n_samples), index)
            soundfile.write(files[-1], np.clip(changed, -1, 1), sample_rate, subtype="PCM_24")
        table = clips.clips.assign(path=files, start_s=0.0, duration_s=np.nan)
        loaded = LabelledClips.load(table, model.config.tasks, where="test clips, changed", progress=False)
        (found,) = evaluate_clips(model, loaded, progress=False).values()
    return found


if __name__ == "__main__":
    sys.exit(main())

"""``audiostride modulations``."""

from itertools import islice
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride.errors import InputError

MOST_DRAWN = 41  # all classes together, and so many of them


def build_parser() -> ArgumentParser:
    """The options of ``audiostride modulations``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("manifest", metavar="MANIFEST", help="CSV manifest, folder of class folders, or store")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="column with the classes")
    parser.add_argument("--audio-root", metavar="DIR", help="folder that paths are relative to")
    parser.add_argument("--sample-rate", type=int, default=16000, help="at which they are heard, in Hz")
    parser.add_argument("--window-s", type=float, default=1.0, help="length of a window, in seconds")
    parser.add_argument(
        "-o", "--out", default="modulations.png", help="picture that is written, .png or .svg; its table lies beside it"
    )
    return parser


def run(arguments: Any) -> int:
    """Draw the modulation power spectrum of each class of a manifest: which rates and densities its sounds hold."""
    # --help and errors in options need not wait for torch and matplotlib.
    import pandas as pd

    from audiostride.dataset.manifest import inspect_manifest
    from audiostride.models import ClassifierConfig
    from audiostride.reporting.modulation_figures import draw_modulations
    from audiostride.reporting.modulations import SHARES, class_spectra, mean_spectrum
    from audiostride.reporting.style import render
    from audiostride.writing import write_bytes, write_text

    out = Path(arguments.out)
    beside = out.with_name(f"{out.stem}_modulations.csv")  # birds.csv beside birds.png may be the manifest
    if out.suffix not in (".png", ".svg") or not out.parent.is_dir():
        raise InputError(f"modulations: -o must be a .png or .svg file in a folder that exists, got {out}")
    clips, bad = inspect_manifest(arguments.manifest, labels=[arguments.label], audio_root=arguments.audio_root)
    bad.raise_if_any(f"manifest {arguments.manifest}", "mend these rows, or give the folder of the audio: --audio-root")
    config = ClassifierConfig(tasks={"": ["a", "b"]}, sample_rate=arguments.sample_rate, window_s=arguments.window_s)
    spectra = class_spectra(clips, arguments.label, arguments.manifest, config, progress=True)
    if not spectra:
        raise InputError(f"modulations: {arguments.manifest} must have clips that can be heard, got none")
    if len(spectra) > 1:
        spectra = {"all classes": mean_spectrum(spectra), **spectra}
    rows = []
    for name, spectrum in spectra.items():
        row: dict[str, Any] = {"class": name}
        for share in SHARES:
            row[f"rate_hz_{100 * share:g}"], row[f"density_{100 * share:g}"] = spectrum.limits(share)
        rows.append(row)
    table = pd.DataFrame(rows)
    drawn = dict(islice(spectra.items(), MOST_DRAWN))
    write_bytes(out, render(draw_modulations(drawn), format=out.suffix[1:]))
    write_text(beside, table.to_csv(index=False))
    print("up to which rate (Hz) and density (cycles/mel) 80, 90 and 95 % of the modulation power lie:")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    rest = "" if len(drawn) == len(spectra) else f" (of the first {len(drawn) - 1} classes)"
    print(f"picture: {out}{rest}, table: {beside}")
    return 0

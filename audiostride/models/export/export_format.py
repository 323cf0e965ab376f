"""The formats of an export, and what can be said of one before anything is computed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from audiostride.checks import check_choice
from audiostride.errors import InputError

ExportFormat = Literal["onnx", "torch-export", "c", "html"]
SUFFIXES: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "torch-export", ".h": "c", ".html": "html"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def choose_format(out: str | Path, given: str | None) -> ExportFormat:
    """The format that is asked for, else that of the suffix of the output.

    Raises:
        InputError: A format or a suffix that is not known, or the suffix of one and the name of the other.
    """
    suffix = Path(out).suffix.lower()
    by_suffix = SUFFIXES.get(suffix)
    if given is None:
        if by_suffix is None:
            raise InputError(
                f"export: -o must end in {', '.join(SUFFIXES)}, or --format be given, got {out}; "
                "name it model.onnx, model.pt2, model.h (C) or model.html"
            )
        return by_suffix
    format = check_format(given)
    if by_suffix is not None and by_suffix != format:
        raise InputError(
            f"export: -o must fit --format {format}, got {out}, a name for {by_suffix}; change one of them"
        )
    return format


def check_format(given: str) -> ExportFormat:
    """The format of that name, or `InputError`."""
    check_choice("export", "format", given, ExportFormat)
    return cast("ExportFormat", given)


def check_int8(format: ExportFormat, *, int8: bool) -> None:
    """Raise where int8 is asked of a format that has none."""
    if int8 and format not in ("onnx", "c"):
        raise InputError(f"export: int8 must be given with ONNX or C, got {format}; name the output model.onnx")


def check_place(out: Path, *, overwrite: bool) -> None:
    """Raise unless a file may be written there: it costs seconds to find out later."""
    if not out.parent.is_dir():
        raise InputError(f"export: -o must lie in a folder that exists, got {out}")
    if out.is_dir():
        raise InputError(f"export: -o must be a file, but {out} is a folder; give a name in it, such as model.onnx")
    if out.exists() and not overwrite:
        raise InputError(f"export: {out} exists; choose another -o, or give --overwrite")


def check_packages(format: ExportFormat) -> None:
    """Raise where ONNX is asked for and its packages are missing."""
    missing = [package for package in PACKAGES if format == "onnx" and find_spec(package) is None]
    if missing:
        raise InputError(
            f"export: ONNX needs the packages {', '.join(PACKAGES)}, and these are missing: {', '.join(missing)}; "
            "install them with pip install 'audiostride[export]', or give --format torch-export"
        )

"""Properties of the package as a whole: floors, imports, the README, recipes."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

import audiostride
from audiostride.commands.doctor.installation import MALICIOUS

PACKAGE = Path(audiostride.__file__).parent
ROOT = Path(__file__).parent.parent
FLOORS = {
    "errors": 0, "checks": 0, "wording": 0, "writing": 0, "progress": 0, "distributed": 0,
    "strides": 1, "audio": 1,
    "dataset": 2, "functional": 2,
    "inference": 3,  # of any model that has what `inference.model` asks, so that models may hand over to it
    "models": 4,
    "training": 5,
    "reporting": 6,
    "commands": 7, "cli": 8, "__main__": 9,
}  # fmt: skip

# Imports that lead up, or to a neighbour, and are to go: file and room, and why they are still there.
TO_BE_MENDED = {}


def imported_rooms(tree: ast.AST) -> set[str]:
    """Rooms of the package that a module imports from, those behind its public names too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            if node.module == "audiostride":
                names = [alias.name for alias in node.names if alias.name != "__version__"]
                found |= {audiostride._LAZY.get(name, f"audiostride.{name}") for name in names}
            else:
                found.add(node.module or "")
    return {name.split(".")[1] for name in found if name.startswith("audiostride.")}


def wrong_imports(name: str, source: str) -> list[str]:
    """Rooms that a module of the room `name` imports though they are not below it; the ground is free within itself."""
    floor = FLOORS[name]
    rooms = imported_rooms(ast.parse(source)) - {name}
    apart = {"functional", *(["dataset"] if name == "models" else [])}  # a network knows nothing of files
    return sorted(room for room in rooms if FLOORS[room] >= max(floor, 1) or room in apart)


def test_imports_go_down_only() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"]
    assert len(files) > 70
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in files} == set(FLOORS)
    wrong = {
        (path.relative_to(PACKAGE).as_posix(), room)
        for path in files
        for room in wrong_imports(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path.read_text())
    }
    assert wrong == set(TO_BE_MENDED)


def test_a_wrong_import_is_found() -> None:
    assert wrong_imports("inference", "def f():\n    from audiostride.dataset import manifest") == []
    assert wrong_imports("strides", "def f():\n    from audiostride.models.encoder import Encoder") == ["models"]
    assert wrong_imports("dataset", "import audiostride.models.config") == ["models"]
    assert wrong_imports("strides", "from audiostride import LogMel, __version__, audio, errors") == ["audio"]
    assert wrong_imports("checks", "from audiostride.errors import InputError") == []
    assert wrong_imports("errors", "import audiostride.strides.masks") == ["strides"]
    assert wrong_imports("models", "from audiostride.functional import passband_mask") == ["functional"]
    assert wrong_imports("models", "from audiostride.dataset.readers import AudioReader") == ["dataset"]
    assert wrong_imports("inference", "from audiostride.models import AudioClassifier") == ["models"]


def test_the_package_needs_nothing_of_the_recipes() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"lab", "images", "recipes"}, path


def test_the_functions_of_tensors_have_public_names() -> None:
    from audiostride import functional

    named = {"passband_mask", "output_length", "minimum_stride", "limit_stride", "pooling_matrix", "diffstride_pool"}
    named |= {"fourier_pooling_matrix", "spectral_output_length", "spectral_pool"}
    named |= {"log_mel_spectrogram", "mel_filterbank"}
    assert set(functional.__all__) == named
    for name in named:
        assert callable(getattr(functional, name)), name


def run_python(code: str, *, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=cwd,
        check=False,
    )


HEAVY = ["numpy", "torch", "pandas", "pyarrow", "soundfile", "scipy", "sklearn", "librosa"]
HEAVY += ["torchaudio", "torchmetrics", "torchvision", "lightning_fabric", "matplotlib", "jinja2", "jsonargparse"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import audiostride", []),
        ("import audiostride; dir(audiostride); audiostride.__version__", []),
        ("from audiostride import InputError", []),
        ("from audiostride import DiffStride2d", ["numpy", "torch"]),
        ("from audiostride import AudioClassifier, LogMel, load_classifier", ["numpy", "torch"]),
        ("from audiostride.cli import main", ["jsonargparse"]),
        (
            "from audiostride.commands.train import build_parser; build_parser()",
            ["numpy", "pandas", "pyarrow", "soundfile", "jsonargparse"],
        ),
        (
            "import audiostride.training.run",
            ["numpy", "torch", "pandas", "pyarrow", "soundfile", "scipy", "sklearn", "lightning_fabric", "jinja2"],
        ),
    ],
)
def test_an_import_loads_what_it_needs_and_nothing_else(statement: str, expected: list[str]) -> None:
    """Many people will want the layer alone; and `check` and `prepare` start without torch."""
    loaded = run_python(f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded.stdout.strip() == str(expected), loaded.stderr


def test_malicious_uploads_of_lightning_are_not_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked_for = {each.name: each for each in map(Requirement, project["dependencies"])}
    assert not set(MALICIOUS) & set(asked_for)
    asked = asked_for["lightning-fabric"]
    assert asked.specifier.contains("2.6.6")
    assert not asked.specifier.contains("2.6.5")  # its checkpoints may run code


def test_public_names_are_there() -> None:
    for name in audiostride.__all__:
        assert getattr(audiostride, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        audiostride.nothing  # noqa: B018


def third_party_imports(package: Path) -> set[str]:
    """Names of the modules outside the standard library that a package imports, wherever in its files."""
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {package.name}


def test_what_is_required_is_imported_and_what_is_imported_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module_of = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
    required = {
        module_of.get(each.name, each.name.replace("-", "_")) for each in map(Requirement, project["dependencies"])
    }
    optional = project["optional-dependencies"]
    extras = {Requirement(line).name for line in [*optional["export"], *optional["live"], *optional["wandb"]]}
    assert required <= third_party_imports(PACKAGE) <= required | extras
    assert not {"torchaudio", "librosa", "pooch", "tensorboardX"} & required
    (torch,) = [each for each in map(Requirement, project["dependencies"]) if each.name == "torch"]
    assert torch.specifier.contains("2.11.0")
    assert torch.specifier.contains("3.0")


@pytest.mark.slow
def test_the_whole_job_runs_where_torchaudio_does_not_load(manifest: Path, tmp_path: Path, tiny: list[str]) -> None:
    """A torchaudio built for another torch fails on import with an OSError."""
    (tmp_path / "broken" / "torchaudio").mkdir(parents=True)
    (tmp_path / "broken" / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol: torch_library')")
    path = os.pathsep.join([str(tmp_path / "broken"), str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    assert "undefined symbol" in run_python("import torchaudio", PYTHONPATH=path).stderr
    run, page, out = (str(tmp_path / name) for name in ("run", "page.html", "p.csv"))
    commands = [
        ["train", "--manifest", str(manifest), "--label", "kind", "--out", run, *tiny],
        ["evaluate", run],
        ["predict", run, str(manifest.parent / "audio"), "-o", out],
        ["report", run, "-o", page],
    ]
    code = f"from audiostride.cli import main\nfor command in {commands!r}:\n    assert main(command) == 0, command"
    done = run_python(code, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(page).exists()
    assert Path(out).exists()


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
def test_the_python_examples_of_the_readme_run(trained_run: Path, manifest: Path, tmp_path: Path) -> None:
    blocks = readme_blocks("python")
    assert len(blocks) >= 2
    recording = next((manifest.parent / "audio").glob("*.wav"))
    for number, block in enumerate(blocks):
        code = block.replace('"runs/mine"', repr(str(trained_run))).replace('"recording.wav"', repr(str(recording)))
        done = run_python(code, cwd=tmp_path, PYTHONPATH=str(PACKAGE.parent))
        assert done.returncode == 0, f"example {number}: {done.stderr[-1500:]}"


def test_the_commands_of_the_readme_parse() -> None:
    from audiostride.cli import build_parser

    commands = [
        line.removeprefix("audiostride ").split()
        for block in readme_blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("audiostride ")
    ]
    assert len(commands) >= 3
    for command in commands:
        build_parser(command[0]).parse_args(command[1:])


@pytest.mark.slow
def test_the_commands_of_the_readme_run(
    manifest: Path, tmp_path: Path, tiny: list[str], run_command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tiny data under the names that the README uses; downloads have tests of their own, with a local server."""
    rows = pd.read_csv(manifest)
    rows["path"] = [str(manifest.parent / path) for path in rows["path"]]
    rows = rows.assign(species=rows["kind"], label=rows["kind"], instrument_family=rows["kind"])
    rows["pitch"] = ["high" if number % 3 else "low" for number in range(len(rows))]
    for name in ("birds", "bats", "speech", "scenes", "notes"):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    recordings = [path for path in rows["path"] if path.endswith(".flac")]
    for folder in ("recordings", "more/deep", "stores"):
        (tmp_path / folder).mkdir(parents=True)
    annotated = [f"recordings/{number}.flac" for number in range(4)]
    for target in (*annotated, "more/deep/two.flac", "night.flac"):
        shutil.copy(recordings[0], tmp_path / target)
    (tmp_path / "selections").mkdir()
    boxes = "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0.1\t0.3\towl\n"
    for number in range(4):
        (tmp_path / "selections" / f"{number}.Table.1.selections.txt").write_text(boxes)
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line.removeprefix("audiostride "))
        for block in readme_blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("audiostride ") and "--download" not in line
    ]
    verbs = [command[0] for command in commands]
    assert set(verbs) == {"train", "predict", "report", "check", "prepare", "import", "export", "doctor"}
    for command in commands:
        options = {"train": [*tiny, "--device", "cpu"], "doctor": ["--no-self-test"]}.get(command[0], [])
        if command[-2:] == ["-o", "predictions.csv"]:
            options = ["--overwrite"]  # the README writes it twice
        # The tiny set has findings, such as clips of one sound in two splits.
        assert run_command(*command, *options) in ((0, 1) if command[0] in ("check", "doctor") else (0,)), command
    for made in ("predictions.csv", "night.txt", "model.onnx", "runs/mine/report.html", "runs/five/metrics.json"):
        assert (tmp_path / made).is_file(), made


@pytest.mark.slow
def test_the_reading_recipe_prints_its_table() -> None:
    command = [sys.executable, str(ROOT / "recipes" / "bench_data.py"), "--part", "read"]
    command += ["--files", "2", "--seconds", "3", "--turns", "1"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
    assert rows[0] == ["read with", "windows/s", "x soundfile, FLAC"]
    found = {name: (float(rate.replace(",", "")), float(ratio)) for name, rate, ratio in rows[2:]}
    readers = ["soundfile, FLAC", "soundfile, WAV", "librosa.load, FLAC", "librosa.load, FLAC 48 kHz stereo"]
    readers += [f"audiostride, {kind}" for kind in ("FLAC", "WAV", "FLAC 48 kHz stereo", "store")]
    readers += ["a plain int16 memory map", "frontend alone (log-mel)", "resampling alone, 48 to 16 kHz"]
    readers += ["a whole epoch: store and frontend"]
    assert list(found) == readers
    assert all(rate > 0 for rate, _ in found.values())
    reference = found["soundfile, FLAC"]
    assert reference[1] == 1
    for rate, ratio in found.values():
        # Rates are rounded to 1, ratios to 0.01.
        assert ratio == pytest.approx(rate / reference[0], abs=0.01 + 2 / reference[0] * ratio)


@pytest.mark.slow
def test_the_comparison_recipe_prints_its_table_and_resumes(manifest: Path, tmp_path: Path, tiny: list[str]) -> None:
    recipe = str(ROOT / "recipes" / "compare_pooling.py")
    command = [sys.executable, recipe, "--manifest", str(manifest), "--label", "kind"]
    command += ["--seeds", "0", "--out", str(tmp_path / "runs"), *tiny]
    command += ["--only", "DiffStride folded"]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout for _ in range(2)
    )
    rows = [line for line in first.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["strided", "DiffStride folded"]
    assert "1.00 x" in rows[2]
    assert rows == [line for line in second.splitlines() if line.startswith("|")]
    assert (tmp_path / "runs" / "report.html").exists()


USER_SCRIPT = """
import audiostride
from torch import nn

reveal_type(audiostride.convert_downsampling)
reveal_type(audiostride.freeze_downsampling)
reveal_type(audiostride.project_strides_)
reveal_type(audiostride.stride_cost)
reveal_type(audiostride.cutoff_table)
reveal_type(audiostride.report)
reveal_type(audiostride.load_classifier("runs/mine").predict("a.wav", top=3))
reveal_type(audiostride.DiffStride2d(2.0))
network: nn.Module = nn.Conv2d(1, 2, 3)
audiostride.project_strides_(network, 3)
"""


@pytest.mark.slow
def test_a_user_sees_types(tmp_path: Path) -> None:
    """The public names have types for whoever checks a script of their own, and a wrong call is told."""
    (tmp_path / "script.py").write_text(USER_SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    revealed = [line.split('Revealed type is "')[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == USER_SCRIPT.count("reveal_type(")
    assert not [shown for shown in revealed if shown.startswith(("Any", "def (*Any")) or shown == 'Any"']
    assert 'error: Too many arguments for "project_strides_"' in done.stdout


def test_all_public_names_have_types() -> None:
    source = (ROOT / "audiostride" / "__init__.py").read_text(encoding="utf-8")
    (block,) = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.If)][:1]
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(audiostride.__all__)


@pytest.mark.slow
def test_what_is_published_holds_all_that_the_package_needs(tmp_path: Path) -> None:
    """A source archive, a wheel from it alone, put into an empty folder, used from elsewhere."""
    tree = tmp_path / "tree"
    for name in ("audiostride", "data_manifests", "recipes", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = f"from hatchling.build import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    (archive,) = tmp_path.glob("audiostride-*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, archive], check=True)
    (wheel,) = tmp_path.glob("audiostride-*.whl")
    with zipfile.ZipFile(wheel) as parts:
        assert {Path(name).parts[0].split("-")[0] for name in parts.namelist()} == {"audiostride"}
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    metadata = next((tmp_path / "site").glob("*.dist-info")) / "METADATA"
    assert "Classifier: Typing :: Typed" in metadata.read_text(encoding="utf-8")
    assert (tmp_path / "site" / "audiostride" / "py.typed").is_file()
    code = "import audiostride; from audiostride.dataset.cards import read_card; from audiostride.cli import main; "
    code += "print(audiostride.__file__, sorted(read_card('ripples'))); main(['train', '--help'])"
    done = run_python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr
    assert "--help-all lists" in done.stdout

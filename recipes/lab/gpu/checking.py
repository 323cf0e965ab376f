"""The card and its limits; its numbers against the CPU's."""

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import DiffStride2d, LogMel
from lab.gpu.part import RATE, Part, seconds_each
from lab.gpu.steps import VARIANTS, make_model

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("torch", "torchaudio", "torchvision", "lightning-fabric", "numpy", "pandas", "soundfile", "soxr", "pytest")
# Largest relative errors of outputs and gradients in float32, then of both in bfloat16. On a CPU float32 is 1e-6 from
# float64 (gradients of a network up to 2e-3, where a ReLU or a maximum decides otherwise), bfloat16 autocast 4e-3 in a
# layer. Through twelve convolutions bfloat16 is 0.02 to 0.05 off, in gradients 0.3 to 0.6, again since ReLUs decide
# otherwise; gradients that have nothing in common would be 1.4 apart.
LAYER_BOUNDS, NETWORK_BOUNDS = (1e-4, 1e-4, 2e-2, 2e-2), (1e-4, 2e-2, 0.1, 0.9)


def measure_machine(part: Part) -> None:
    """The card, what it can, and the limits that every later figure can be put beside."""
    device, on_gpu = part.device, part.device.type == "cuda"
    add = part.table("", ["what", "value"])
    if on_gpu:
        card = torch.cuda.get_device_properties(device)
        add(
            [
                "card, multiprocessors, capability",
                f"{card.name}, {card.multi_processor_count}, {card.major}.{card.minor}",
            ]
        )
        add(["memory", f"{card.total_memory / 2**30:.1f} GiB"])
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
            add(["driver", done.stdout.strip()])
    add(["CUDA of torch, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"])  # type: ignore[no-untyped-call]
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    add(["TF32 allowed in products, in convolutions", f"{tf32[0]}, {tf32[1]}"])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        add([f"products in {str(dtype).removeprefix('torch.')}", try_product(dtype, device)])
    add(["packages", ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)])
    count, n = part.size(2**30, 2**20), part.size(8192, 128)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = torch.randn(2, n, n, device=device).unbind()  # random: on zeros products run faster
    low_a, low_b = a.bfloat16(), b.bfloat16()
    small = torch.ones(1, device=device)
    tasks: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(source),
        "bfloat16": lambda: low_a @ low_b,
        "float32": lambda: a @ b,
        "launch": lambda: [small.add_(1) for _ in range(100)],
    }
    if on_gpu:
        pinned = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
        tasks["pinned"] = lambda: target[: 2**28].copy_(pinned, non_blocking=True)
    for task in tasks.values():
        task()
    found = seconds_each(tasks, part)
    add(["copy on the card, bytes read and written", f"{2 * count / found['copy'] / 1e9:.0f} GB/s"])
    add([f"product of {n} x {n} in bfloat16", f"{2 * n**3 / found['bfloat16'] / 1e12:.1f} TFLOP/s"])
    add(["the same in float32", f"{2 * n**3 / found['float32'] / 1e12:.1f} TFLOP/s"])
    if on_gpu:
        add(["copy from pinned memory", f"{2**28 / found['pinned'] / 1e9:.1f} GB/s"])
    add(["one small kernel after another", f"{found['launch'] / 100 * 1e6:.1f} us each"])


def try_product(dtype: torch.dtype, device: torch.device) -> str:
    """Whether the device multiplies matrices of a type, or what it says."""
    try:
        ones = torch.ones(16, 16, device=device, dtype=dtype)
        return "right" if bool((ones @ ones == 16).all()) else "WRONG"
    except RuntimeError as error:
        return str(error).splitlines()[0]


def version_of(package: str) -> str:
    """The version that is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def measure_correctness(part: Part) -> None:
    """The GPU's numbers against those of the CPU, and the tests for GPUs."""
    compare_numbers(part)
    run_gpu_tests(part)


def compare_numbers(part: Part) -> None:
    """Outputs and gradients on the GPU against the CPU in float32, and in bfloat16 against float32."""
    add = part.table(
        "Relative error |a - b| / |b|, and its bound: float32 on the GPU (no TF32) against the CPU, bfloat16 autocast "
        "against float32 on the GPU. Networks in evaluation, where batch norm does not magnify rounding.",
        ["what", "float32: outputs", "gradients", "bf16: outputs", "gradients", "verdict"],
    )
    torch.manual_seed(0)
    cases: dict[str, tuple[nn.Module, Tensor, tuple[float, ...]]] = {
        "DiffStride2d paper": (DiffStride2d((2.3, 1.7), size="paper"), torch.randn(4, 8, 100, 64), LAYER_BOUNDS),
        "DiffStride2d nominal": (DiffStride2d((2.3, 1.7), size="nominal"), torch.randn(4, 8, 100, 64), LAYER_BOUNDS),
        "DiffStride2d folded": (DiffStride2d((2.3, 1.7), size="folded"), torch.randn(4, 8, 100, 64), LAYER_BOUNDS),
        "the same by FFT": (DiffStride2d((1.5, 1.7), size="folded"), torch.randn(2, 2, 600, 520), LAYER_BOUNDS),
        "LogMel": (LogMel(), torch.randn(8, RATE) / 8, LAYER_BOUNDS),
    }
    for variant in VARIANTS:
        x = torch.randn(part.size(16, 4), RATE) / 8
        cases[f"classifier, {variant}"] = settled(make_model(variant, part), x), x, NETWORK_BOUNDS
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    for name, (module, x, bounds) in cases.items():
        on_cpu = numbers(module, x, torch.device("cpu"), bf16=False)
        exact = numbers(module, x, part.device, bf16=False)
        rounded = numbers(module, x, part.device, bf16=True)
        errors = [*map(relative_error, exact, on_cpu), *map(relative_error, rounded, exact)]
        right = all(error <= bound for error, bound in zip(errors, bounds, strict=True))
        cells = [f"{error:.1e} ({bound:g})" for error, bound in zip(errors, bounds, strict=True)]
        add([name, *cells, "right" if right else "OUT OF BOUNDS"])
        if not right:
            part.found["status"] = "out of bounds"
    torch.backends.cudnn.allow_tf32 = tf32


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """The model in evaluation, its batch norms with the statistics of a batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def numbers(module: nn.Module, x: Tensor, device: torch.device, *, bf16: bool) -> tuple[Tensor, Tensor]:
    """Outputs of a module, and all gradients of a weighted sum of them, each scaled to its own norm."""
    module, x = module.to(device), x.detach().to(device).requires_grad_()
    module.zero_grad()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        given = module(x)
    outputs = torch.cat([each.float().flatten() for each in (given.values() if isinstance(given, dict) else [given])])
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (outputs * weights).sum().backward()  # type: ignore[no-untyped-call]
    leaves = [x, *module.parameters()]
    gradients = [F.normalize(leaf.grad.flatten().float(), dim=0) for leaf in leaves if leaf.grad is not None]
    return outputs.detach().cpu().double(), torch.cat(gradients).cpu().double()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """``|a - b| / |b|``; infinite where a number is not finite."""
    error = float((found - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf


def run_gpu_tests(part: Part) -> None:
    """Run the tests that are marked gpu, in a process of their own."""
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # In one process, and without warnings as errors: what other versions of packages deprecate is not asked here.
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
        command += [
            "--continue-on-collection-errors",
            "--import-mode=importlib",
            "-W",
            "default",
            f"--junitxml={report}",
            *map(str, files),
        ]
        # Where pytest itself runs this, its settings are not for the tests in here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with code {done.returncode} and without a report; see the log")
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = {case: bad for case in cases for kind in ("failure", "error") for bad in case.iter(kind)}
    skipped = sum(case.find("skipped") is not None for case in cases)
    add = part.table(f"`pytest -m gpu`, {len(files)} files.", ["tests", "passed", "failed", "skipped"])
    add([len(cases), len(cases) - len(failed) - skipped, len(failed), skipped])
    for case, bad in failed.items():
        part.note(f"{case.get('classname')}::{case.get('name')}: {(bad.get('message') or '?').splitlines()[0]}")
    if failed:
        part.found |= {"status": "failed", "error": "\n\n".join((bad.text or "")[-1500:] for bad in failed.values())}
    elif len(cases) == skipped and not part.smoke:
        raise RuntimeError("none of the tests for GPUs ran, though there is a GPU")

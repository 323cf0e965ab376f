"""The device of a run, its arithmetic, and what stands in ``environment.json``."""

import ctypes
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from audiostride.errors import InputError
from audiostride.models.classifier import AudioClassifier
from audiostride.models.export.parity import median_ms

PACKAGES = ("audiostride", "torch", "torchaudio", "lightning-fabric", "numpy", "pandas", "soundfile", "soxr", "librosa")
KEPT_BYTES = 2**30  # of freed memory, at most, for the next step
# Of mallopt in malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str, *, devices: int = 1) -> torch.device:
    """The device of a name; ``auto`` is a GPU where there is one.

    Args:
        name: auto, cpu, cuda, or mps, the GPU of an Apple computer.
        devices: How many of them are needed.

    Raises:
        InputError: A GPU was asked for and there is none, or more than there are.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda needs a CUDA GPU that torch can use, got none; use --device cpu")
    if name == "mps":  # never tried: nothing asks for float64 there
        if not torch.backends.mps.is_available():
            raise InputError("--device mps needs an Apple GPU that torch can use, got none; use --device cpu")
        if devices > 1:
            raise InputError(f"--devices must be 1 with --device mps, got {devices}; an Apple computer has one GPU")
        return torch.device("mps")
    device = torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise InputError(
            f"--devices must be at most the number of GPUs here ({torch.cuda.device_count()}), got {devices}"
        )
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Lightning's name of the arithmetic; ``auto`` is bfloat16 autocast on a GPU that has it, else float32."""
    if name == "16-mixed" and device.type == "cpu":
        raise InputError("train: --precision 16-mixed needs a GPU, got the CPU; use 32 or bf16-mixed")
    if name != "auto":
        return name
    return "bf16-mixed" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"


def keep_freed_memory() -> None:
    """Let this process keep memory that tensors free, for the next step; only the GNU C library is asked.

    Without it large blocks go back to the system and are zeroed page by page when they come again, thousands of pages a
    step. An environment with settings of its own for the allocator (``MALLOC_...``, another library) is left alone.
    """
    names = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(names) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        library.mallopt(name, KEPT_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own on GPUs, a plain one with a text on CPUs."""
    texts = ("out of memory", "can't allocate memory", "DefaultCPUAllocator")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and command of this process."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": versions,
    }


@torch.inference_mode()
def time_window(model: AudioClassifier) -> float:
    """Median time of one window through a frozen copy of a model on one thread of the CPU, with its frontend, in ms."""
    frozen, threads = model.freeze().cpu().float().eval(), torch.get_num_threads()
    window = torch.randn(1, model.config.window_samples) / 100
    torch.set_num_threads(1)
    try:
        return median_ms(lambda: frozen(window))
    finally:
        torch.set_num_threads(threads)


def _program() -> list[str]:
    """How this program was called; ``python -m audiostride`` calls itself ``__main__.py``."""
    name = Path(sys.argv[0]).name
    return ["python", "-m", "audiostride"] if name == "__main__.py" else [name]


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def resident_mib(device: torch.device) -> float:
    """Memory in use now, in MiB, as `peak_memory_mib` counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far in MiB: of the tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # POSIX only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

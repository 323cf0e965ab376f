"""The machine: processors, GPUs, decoders of sound, memory and disk."""

import io
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiostride.commands.doctor.verdict import Finding, reason_of, try_import
from audiostride.distributed import default_jobs

LITTLE_MEMORY_GIB = 2.0
LITTLE_DISK_GIB = 5.0
SLOW_DISK_MIB_S = 50.0
TEST_MIB = 64
GIB = 2**30
# What libsndfile is asked to write and read: name, format, subtype, sample rate (Opus knows five only).
FORMATS = {
    "flac": ("FLAC", "PCM_16", 16000),
    "ogg": ("OGG", "VORBIS", 16000),
    "mp3": ("MP3", "MPEG_LAYER_III", 16000),
    "opus": ("OGG", "OPUS", 48000),
}


def look_at_processor() -> Finding:
    """The CPU, the cores that this process may use, the threads that torch takes, and whether it has bfloat16."""
    cores = usable_cores()
    facts: dict[str, Any] = {"name": cpu_name(), "cores": cores}
    text = f"{facts['name']}, {cores:g} cores for this process"
    torch = try_import("torch")
    if isinstance(torch, Exception):
        return Finding("cpu", "ok", text, facts=facts)
    facts["threads"] = torch.get_num_threads()
    facts["bfloat16"] = has_bfloat16(torch.cpu)
    text += f", threads of torch: {facts['threads']}"
    text += f", bfloat16 {'yes' if facts['bfloat16'] else 'no'}"
    if facts["threads"] > max(1, cores):
        cure = f"more threads than cores slow each other down: set OMP_NUM_THREADS={max(1, int(cores))}"
        return Finding("cpu", "warning", text, cure, facts)
    return Finding("cpu", "ok", text, facts=facts)


def has_bfloat16(cpu: Any) -> bool:
    """Whether the processor computes bfloat16; `cpu` is ``torch.cpu``."""
    # Newer than the oldest torch that is supported.
    capabilities: dict[str, Any] = getattr(cpu, "get_capabilities", dict)()
    return any(there for name, there in capabilities.items() if "bf16" in name)


def usable_cores() -> float:
    """Cores that this process may use: those of its affinity, or fewer where its control group has a quota."""
    cores = float(default_jobs())
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        allowed, period = quota.read_text(encoding="ascii").split()
        if allowed != "max":
            cores = min(cores, int(allowed) / int(period))
    return cores


def cpu_name() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def look_at_gpus() -> Iterator[Finding]:
    """Each CUDA device with its memory and whether it has bfloat16."""
    torch = try_import("torch")
    has_driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").is_file()
    if isinstance(torch, Exception) or not torch.cuda.is_available():
        if not has_driver:
            text = (
                "no CUDA device; the CPU is used (networks of --width 0.25 train in minutes, the paper's widths do not)"
            )
            yield Finding("gpu", "ok", text)
        elif isinstance(torch, Exception):
            yield Finding("gpu", "warning", "there is a driver, and torch does not import", "mend torch first")
        else:
            built = "is built without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
            cure = 'update a driver that is too old; replace a torch without CUDA: pip install "torch>=2.11"'
            yield Finding("gpu", "warning", f"there is a driver, but torch sees no device; it {built}", cure)
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name, bf16 = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index) >= (8, 0)
        facts = {"name": name, "free_gib": free / GIB, "total_gib": total / GIB, "bfloat16": bf16}
        text = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, bfloat16 {'yes' if bf16 else 'no'}"
        if free < LITTLE_MEMORY_GIB * GIB:
            cure = "end what else runs there (nvidia-smi lists it), or choose another with CUDA_VISIBLE_DEVICES"
            yield Finding(f"gpu cuda:{index}", "warning", text, cure, facts)
        else:
            yield Finding(f"gpu cuda:{index}", "ok", text, facts=facts)


def look_at_formats() -> Finding:
    """Which formats libsndfile writes and reads back."""
    topic = "libsndfile"
    soundfile, numpy = try_import("soundfile"), try_import("numpy")
    for name, module in (("soundfile", soundfile), ("numpy", numpy)):
        if isinstance(module, Exception):
            cure = f"pip install --force-reinstall {name}"
            return Finding(topic, "problem", f"{name} does not import: {reason_of(module)}", cure)
    works = {}
    for name, (format, subtype, rate) in FORMATS.items():
        samples = numpy.sin(numpy.arange(rate // 2) / 10) / 2
        try:
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
            buffer.seek(0)
            read, found_rate = soundfile.read(buffer)
            # Codecs with loss change samples, and some add a few at the ends.
            same = found_rate == rate and abs(len(read) - len(samples)) < rate / 4
            works[name] = bool(same and read.std() > 0.2)
        except Exception:
            works[name] = False
    facts = {"libsndfile": soundfile.__libsndfile_version__, **works}
    text = f"{facts['libsndfile']}, " + ", ".join(f"{name} {'yes' if ok else 'no'}" for name, ok in works.items())
    if not works["flac"]:
        return Finding(topic, "problem", text, "pip install --force-reinstall soundfile", facts)
    if not all(works.values()):
        cure = 'an old libsndfile of the system is used: pip install --force-reinstall "soundfile>=0.13", or use ffmpeg'
        return Finding(topic, "warning", text, cure, facts)
    return Finding(topic, "ok", text, facts=facts)


def look_at_ffmpeg() -> Finding:
    """The programs ffmpeg and ffprobe."""
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        cure = "files such as .m4a need it: apt install ffmpeg, brew install ffmpeg, conda install ffmpeg"
        return Finding("ffmpeg", "warning", f"{' and '.join(missing)} not found on the PATH", cure, {"ffmpeg": None})
    done = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, timeout=20, check=False)
    first = (done.stdout.splitlines() or [""])[0]
    if done.returncode != 0:
        text = f"ffmpeg does not start: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}"
        return Finding("ffmpeg", "warning", text, "install it anew", {"ffmpeg": None})
    return Finding("ffmpeg", "ok", first.split(" Copyright")[0], facts={"ffmpeg": first})


def look_at_memory() -> Finding:
    """Main memory that is free for this process."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return Finding("memory", "ok", "not known on this system")
    lines = dict(line.split(":", 1) for line in info.read_text(encoding="ascii").splitlines() if ":" in line)
    total, free = (int(lines[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text(encoding="ascii").strip() != "max":
        total = min(total, int(limit.read_text(encoding="ascii")) / GIB)
        free = min(free, total - int(used.read_text(encoding="ascii")) / GIB)
    facts = {"free_gib": free, "total_gib": total}
    text = f"{free:.1f} of {total:.1f} GiB free"
    if free < LITTLE_MEMORY_GIB:
        return Finding("memory", "warning", text, "a training takes 1 to 2 GiB: end other programs", facts)
    return Finding("memory", "ok", text, facts=facts)


def look_at_disk(folder: Path, *, mib: int = TEST_MIB) -> Finding:
    """Free space in a folder, and how fast a file is written there and read.

    Args:
        folder: Where the file is made; it is removed.
        mib: Its size.
    """
    place = folder.resolve()
    topic = f"disk of {place}"
    try:
        free = shutil.disk_usage(place).free / GIB
        block = os.urandom(2**20)  # nothing that a file system could pack
        with tempfile.NamedTemporaryFile(dir=place, prefix=".audiostride-doctor-") as file:
            begin = time.perf_counter()
            for _ in range(mib):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            write = mib / (time.perf_counter() - begin)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            begin = time.perf_counter()
            while file.read(2**20):
                pass
            read = mib / (time.perf_counter() - begin)
    except OSError as error:
        cure = "run where you may write and where there is room, or name a folder with --folder"
        return Finding(topic, "problem", reason_of(error), cure)
    facts = {"free_gib": free, "write_mib_s": write, "read_mib_s": read}
    text = f"{free:.0f} GiB free, writes {write:.0f} MiB/s, reads {read:.0f} MiB/s (the page cache may flatter it)"
    if free < LITTLE_DISK_GIB:
        return Finding(topic, "warning", text, "runs and stores may fill it: make room", facts)
    if min(write, read) < SLOW_DISK_MIB_S:
        cure = "put stores (audiostride prepare) on a local disk, not on one of the network"
        return Finding(topic, "warning", text, cure, facts)
    return Finding(topic, "ok", text, facts=facts)

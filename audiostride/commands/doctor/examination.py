"""All that is looked at, in order."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from audiostride.commands.doctor import installation, machine, selftest
from audiostride.commands.doctor.findings import Finding, attempt

REPORT = "this should not happen: report it with all of this output"


def examine(folder: Path, *, self_test: bool = True) -> Iterator[Finding]:
    """The findings, one after the other as they come in; nothing that is broken stops it.

    Args:
        folder: Where runs are to be written: its disk is tried.
        self_test: Whether layer, frontend and training step are tried on each device.
    """
    looks: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
        "python": installation.look_at_python,
        "torch and torchaudio": installation.look_at_torch,
        "malicious packages": installation.look_for_malicious_uploads,
        "packages": installation.look_at_packages,
        "export": installation.look_at_export,
        "cpu": machine.look_at_processor,
        "gpu": machine.look_at_gpus,
        "libsndfile": machine.look_at_formats,
        "ffmpeg": machine.look_at_ffmpeg,
        "memory": machine.look_at_memory,
        "disk": lambda: machine.look_at_disk(folder),
    }
    if self_test:
        looks["self-test"] = selftest.check_devices
    for topic, look in looks.items():
        yield from attempt(topic, look, cure=REPORT)

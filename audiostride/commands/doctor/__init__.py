"""``audiostride doctor``: what is wrong with an installation or a machine, and what to change.

For when nothing else may be taken to work: all that may be broken is imported where it is looked at.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from audiostride import __version__
from audiostride.commands.doctor import installation, machine, selftest
from audiostride.commands.doctor.verdict import Finding, attempt, format_finding, format_verdict, overall_status

PROBLEM = 1
REPORT = "this should not happen: report it with all of this output"


def build_parser() -> ArgumentParser:
    """The options of ``audiostride doctor``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("--folder", default=".", help="where runs will be written, whose disk is tried")
    parser.add_argument("--no-self-test", action="store_true", help="only look, in a few seconds")
    parser.add_argument("--model", metavar="RUN", help="a run folder or model file to try on each device too")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the text")
    return parser


def run(arguments: Any) -> int:
    """Look over the installation and the machine, test both, and say what to change; 1 if something does not work."""
    begin, findings = time.perf_counter(), []
    for finding in examine(Path(arguments.folder), self_test=not arguments.no_self_test, model=arguments.model):
        findings.append(finding)
        if not arguments.json:
            print(format_finding(finding), flush=True)
    status = overall_status(findings)
    if arguments.json:
        found = [finding.to_dict() for finding in findings]
        seconds = round(time.perf_counter() - begin, 1)
        print(
            json.dumps({"audiostride": __version__, "verdict": status, "seconds": seconds, "findings": found}, indent=2)
        )
    else:
        print(format_verdict(findings))
    return PROBLEM if status == "problem" else 0


def examine(folder: Path, *, self_test: bool = True, model: str | None = None) -> Iterator[Finding]:
    """The findings, one after the other as they come in; nothing that is broken stops it.

    Args:
        folder: Where runs are to be written: its disk is tried.
        self_test: Whether layer, frontend and training step are tried on each device.
        model: A run folder or a model file that is tried there too.
    """
    looks: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
        "python": installation.look_at_python,
        "torch": installation.look_at_torch,
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
        looks["self-test"] = lambda: selftest.check_devices(model)
    for topic, look in looks.items():
        yield from attempt(topic, look, cure=REPORT)

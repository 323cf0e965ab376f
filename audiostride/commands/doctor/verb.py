"""``audiostride doctor``."""

import json
import time
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

PROBLEM = 1


def build_parser() -> ArgumentParser:
    """The options of ``audiostride doctor``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("--folder", default=".", help="where runs will be written, whose disk is tried")
    parser.add_argument("--no-self-test", action="store_true", help="only look, in a few seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the text")
    return parser


def run(arguments: Any) -> int:
    """Look over the installation and the machine, test both, and say what to change; 1 if something does not work."""
    from audiostride import __version__
    from audiostride.commands.doctor import examine, format_finding, format_verdict, overall_status

    begin, findings = time.perf_counter(), []
    for finding in examine(Path(arguments.folder), self_test=not arguments.no_self_test):
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

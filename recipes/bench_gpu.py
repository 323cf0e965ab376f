"""Every figure that a GPU has to show, from one command that ends in time: the most important figures come first.

Data: none (noise).
Command: python recipes/bench_gpu.py [--minutes 8] [--out runs/gpu] [--only step profile] [--smoke]
Expected: DIR/<part>.json, .md and .log for each part, each complete as soon as the part ends. GPU figures: see
    recipes/README.md, "Every GPU figure", which also says how to run it on a machine without a network.
Hardware: one GPU with bfloat16; let nothing run beside it. --smoke: any CPU, tiny, its figures mean nothing.
Time: --minutes, whatever happens: a part whose time is over is ended, and keeps the rows that it has.

Parts: machine, correctness, step, train, infer, layer, images, profile, products. Each is a process of its own, since
an error on a GPU leaves the process useless; one that fails is listed with its traceback, and the next one goes on.
What a part leaves of its time goes to those after it. Exit code: 0; 1 if a part failed or a comparison is out of
bounds; 2 for bad input.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from audiostride.errors import InputError
from audiostride.writing import write_text

# Shares of the time; of eight minutes these are about seconds. Starting a part and torch takes some of each.
PARTS = {
    "machine": 20, "correctness": 75, "step": 185, "train": 55, "infer": 45, "layer": 25, "images": 45, "profile": 40,
    "products": 30,
}  # fmt: skip
SMOKE_LIMIT_S = 300.0  # of a part on a CPU, for which shares made for a GPU would be wrong


def read_options(given: list[str] | None = None) -> argparse.Namespace:
    """The options.

    Raises:
        InputError: An unknown part, a budget below one minute, a folder that cannot be written, no GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for JSON, Markdown and logs")
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--smoke", action="store_true", help="every part on the CPU, tiny, in under two minutes")
    parser.add_argument("--run-part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=math.inf, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    unknown = [part for part in options.only or [] if part not in PARTS]
    if unknown:
        raise InputError(f"bench_gpu: --only must name parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    if not options.minutes >= 1 or math.isinf(options.minutes):
        raise InputError(f"bench_gpu: --minutes must be at least 1 and finite, got {options.minutes:g}")
    options.parts = [part for part in PARTS if part in (options.only or PARTS)]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / ".writable").touch()
        (options.out / ".writable").unlink()
    except OSError as error:
        raise InputError(
            f"bench_gpu: --out must be a folder that can be written, got {options.out} ({error.strerror}); give another"
        ) from error
    if not options.smoke:
        import torch  # a second, which wrong options need not wait for

        if not torch.cuda.is_available():
            raise InputError(
                "bench_gpu: a GPU that torch can use must be there, got none; --smoke tries every part on the CPU, and "
                "`audiostride doctor` says what is missing"
            )
    return options


def run_part(part: str, options: argparse.Namespace, *, limit_s: float) -> dict[str, Any]:
    """Run a part in a process of its own, for so many seconds at most; what it found, or how it ended."""
    result = options.out / f"{part}.json"
    for stale in (result, result.with_suffix(".md")):
        stale.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--run-part", part, "--out", str(options.out), "--limit-s", f"{limit_s:.1f}"]
    command += ["--smoke"] * options.smoke
    start, ending = time.monotonic(), "failed"
    with open(options.out / f"{part}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            ending = "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started, if it crashed too
            process.wait()
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {"part": part, "tables": []}
    if found.get("status", "running") == "running":
        found["status"] = ending
        if ending == "failed":
            tail = (options.out / f"{part}.log").read_text(encoding="utf-8", errors="replace")[-4000:]
            found["error"] = f"the process ended with code {process.returncode}; the end of its log:\n{tail}"
    found["seconds"] = round(time.monotonic() - start, 1)
    write_text(result, json.dumps(found, indent=1) + "\n")
    write_text(result.with_suffix(".md"), markdown(found))
    return found


def markdown(found: dict[str, Any]) -> str:
    """What a part found, as text with tables."""
    head = f"### {found['part']}: {found['status']}"
    lines = [f"{head}, {found['seconds']:.0f} s" if "seconds" in found else head, ""]
    lines += [found[name] + "\n" for name in ("machine", "smoke") if name in found]
    for table in found["tables"]:
        lines += [table["title"], ""] * bool(table["title"])
        for row in (table["header"], ["---"] * len(table["header"]), *table["rows"]):
            lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |")
        lines.append("")
    lines += [f"- {note}" for note in found.get("notes", [])]
    if "error" in found:
        lines += ["", "```", found["error"].strip(), "```"]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run the parts one after another and print what each has found."""
    start = time.monotonic()
    options = read_options()
    if options.run_part:
        from lab.gpu import run

        return run(options.run_part, options.out, limit_s=options.limit_s, smoke=options.smoke)
    statuses = {}
    for number, part in enumerate(options.parts):
        left_s = 60 * options.minutes - (time.monotonic() - start)
        share = PARTS[part] / sum(PARTS[other] for other in options.parts[number:])
        limit_s = SMOKE_LIMIT_S if options.smoke else max(1.0, left_s * share)
        print(f"{part}: at most {limit_s:.0f} s", flush=True)
        found = run_part(part, options, limit_s=limit_s)
        statuses[part] = found["status"]
        print(markdown(found), flush=True)
    print(", ".join(f"{part}: {status}" for part, status in statuses.items()), f"-> {options.out}")
    return int(any(status in ("failed", "out of bounds") for status in statuses.values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted; the parts that have ended are kept")

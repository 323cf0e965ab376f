"""The parts of bench_gpu.py, each in a process of its own.

A step is forward, losses, backward, Adam and the projection of the strides on a batch that lies on the device, as
`audiostride train` computes it. Strides get their gradients and stay where they are (a learning rate of 0): sizes must
not drift while they are timed. Variants take turns, so that a change of the card's speed falls on all of them.
"""

import traceback
from importlib import import_module
from pathlib import Path

import torch

from lab.gpu.part import Part

# What measures each part. Each module is loaded by its own parts only: a package that it misses ends no other.
MODULES = {
    "machine": "checking", "correctness": "checking", "step": "steps", "train": "commands", "infer": "commands",
    "layer": "networks", "images": "networks", "profile": "steps", "products": "products",
}  # fmt: skip


def run(name: str, out: Path, *, limit_s: float, smoke: bool) -> int:
    """Run a part; its files say what it found and how it ended."""
    if smoke:
        torch.set_num_threads(1)
    part = Part(name, out, limit_s=limit_s, smoke=smoke)
    try:
        getattr(import_module(f"lab.gpu.{MODULES[name]}"), f"measure_{name}")(part)
        if part.found["status"] == "running":
            part.found["status"] = "done"
    except ImportError as error:
        part.found |= {"status": "left out", "error": f"a package is missing or does not load: {error}"}
    except Exception:
        part.found |= {"status": "failed", "error": traceback.format_exc()}
    part.save()
    return int(part.found["status"] in ("failed", "out of bounds"))

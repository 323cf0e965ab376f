"""What the process of a training asks of its machine."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

PAGES = """
import resource, sys, torch
from audiostride.training.hardware import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):  # the first ones make room
    torch.zeros(2**24)
before = pages()
for _ in range(5):
    torch.zeros(2**24)
print(pages() - before)
"""


def new_pages(mode: str, **environment: str) -> int:
    """Pages that the system gives anew while five tensors of 64 MiB come and go."""
    command = [sys.executable, "-c", PAGES, mode]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is asked")
def test_freed_memory_is_used_again() -> None:
    # A system that is short of memory may take back a tensor's pages, 16,384, at any time: of three runs one is enough.
    assert any(new_pages("kept") < 100 for _ in range(3))
    assert new_pages("plain") > 70_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is asked")
def test_an_allocator_with_settings_of_its_own_is_left_alone() -> None:
    assert new_pages("kept", MALLOC_ARENA_MAX="2") > 70_000


def test_bfloat16_on_a_cpu_trains_in_it_and_saves_float32(
    set_manifest: Path, quick_run: Callable[..., int], plain_run: Path, tmp_path: Path
) -> None:
    assert quick_run(set_manifest, tmp_path / "run", "--device", "cpu", "--precision", "bf16-mixed") == 0
    weights, plain = load_file(tmp_path / "run" / "model.safetensors"), load_file(plain_run / "model.safetensors")
    assert all(value.dtype == plain[name].dtype for name, value in weights.items())
    losses = [pd.read_csv(run / "history.csv")["train_loss"] for run in (tmp_path / "run", plain_run)]
    assert not losses[0].equals(losses[1])  # bfloat16 has 8 bits
    assert losses[0].tolist() == pytest.approx(losses[1].tolist(), rel=0.02)

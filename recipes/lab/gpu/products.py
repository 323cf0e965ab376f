"""Products of maps with pooling matrices on a GPU: cuBLAS beside a plain Triton kernel, and inner products.

cuBLAS falls back to slow kernels in half precision where the axis that is summed over is no multiple of eight bins, and
learned strides leave maps of any length. A product with a matrix of a hundred rows is bound by memory.
"""

from collections.abc import Callable
from functools import partial

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from lab.gpu.part import Part, ratio, seconds_each

# Rows of the matrix, bins of the axis, places per leading index and leading indices at batch 256: pooling over time and
# back, the ramp of a mask, later layers, and three taps at once over mel.
SHAPES = [
    (50, 100, 4096, 256),
    (100, 50, 4096, 256),
    (10, 100, 4096, 256),
    (39, 25, 4096, 256),
    (96, 64, 64, 12800),
    (75, 39, 128, 6400),
]


@triton.jit  # type: ignore[untyped-decorator]
def _multiply(  # type: ignore[no-untyped-def]
    matrix, x, out, rows, n, inner, row_stride, column_stride,
    ADD: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """A tile of the result: ROWS rows of the matrix, INNER places of one leading index."""
    tiles = tl.cdiv(inner, INNER)
    outer = (tl.program_id(0) // tiles).to(tl.int64)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = (tl.program_id(0) % tiles) * INNER + tl.arange(0, INNER)
    total = tl.zeros((ROWS, INNER), dtype=tl.float32)
    for start in range(0, n, BINS):
        k = start + tl.arange(0, BINS)
        own = (i[:, None] < rows) & (k[None, :] < n)
        factor = tl.load(matrix + i[:, None] * row_stride + k[None, :] * column_stride, mask=own, other=0.0)
        within = (k[:, None] < n) & (j[None, :] < inner)
        total += tl.dot(
            factor, tl.load(x + outer * n * inner + k[:, None] * inner + j[None, :], mask=within, other=0.0)
        )
    place = out + outer * rows * inner + i[:, None] * inner + j[None, :]
    kept = (i[:, None] < rows) & (j[None, :] < inner)
    if ADD:
        total += tl.load(place, mask=kept, other=0.0).to(tl.float32)
    tl.store(place, total.to(out.dtype.element_ty), mask=kept)


def multiply_on_gpu(matrix: Tensor, x: Tensor, into: Tensor | None = None) -> Tensor:
    """``out[b] = matrix @ x[b]``, added to `into` where that is given.

    Shape:
        matrix: ``(rows, n)`` in any layout; x: ``(outer, n, inner)``. Result: ``(outer, rows, inner)``.
    """
    x = x.contiguous()
    outer, n, inner = x.shape
    out = x.new_empty(outer, len(matrix), inner) if into is None else into
    rows = min(128, max(16, triton.next_power_of_2(len(matrix))))
    columns = min(128, max(16, triton.next_power_of_2(inner)))
    grid = (outer * triton.cdiv(inner, columns), triton.cdiv(len(matrix), rows))
    with torch.cuda.device(x.device):
        _multiply[grid](
            matrix, x, out, len(matrix), n, inner, *matrix.stride(),
            ADD=into is not None, ROWS=rows, BINS=32, INNER=columns, num_warps=8 if rows * columns > 8192 else 4,
        )  # fmt: skip
    return out


def measure_products(part: Part) -> None:
    """Time of the products of a step by cuBLAS and by Triton, beside what the card's memory allows."""
    add = part.table(
        "Products of bfloat16 maps with one matrix, and what reading and writing them takes at the rate of a copy.",
        ["rows x bins", "maps", "bound by memory (ms)", "cuBLAS (ms)", "Triton (ms)", "Triton, x cuBLAS", "error"],
    )
    rows_of = {row[0]: row[1] for table in part.earlier("machine").get("tables", []) for row in table["rows"]}
    rate = float(rows_of.get("copy on the card, bytes read and written", "0 GB/s").split()[0]) * 1e9
    for rows, n, inner, outer in SHAPES:
        outer = part.size(outer, 2)
        matrix = torch.randn(rows, n, device=part.device, dtype=torch.bfloat16)
        x = torch.randn(outer, n, inner, device=part.device, dtype=torch.bfloat16)
        tasks: dict[str, Callable[[], Tensor]] = {
            "cuBLAS": partial(torch.bmm, matrix.expand(outer, -1, -1), x),
            "Triton": partial(multiply_on_gpu, matrix, x),
        }
        if part.smoke:  # a CPU has no Triton
            del tasks["Triton"]
        expected = (matrix.float() @ x.float()).double()
        errors = {name: float((task().double() - expected).norm() / expected.norm()) for name, task in tasks.items()}
        found = seconds_each(tasks, part, turn_s=0.05)
        triton_s = found.get("Triton")
        add([
            f"{rows} x {n}", f"{outer} x {n} x {inner}",
            f"{2e3 * outer * inner * (rows + n) / rate:.3f}" if rate else "-", f"{1e3 * found['cuBLAS']:.3f}",
            f"{1e3 * triton_s:.3f}" if triton_s else "-", ratio(triton_s, found["cuBLAS"]),
            ", ".join(f"{error:.1e}" for error in errors.values()),
        ])  # fmt: skip
    add = part.table("The inner product of two ramps, for the gradient of a stride.", ["how", "ms"])
    a, b = torch.randn(2, part.size(256 * 10 * 4096, 100), device=part.device, dtype=torch.bfloat16).unbind()
    sums: dict[str, Callable[[], Tensor]] = {
        "float32 copies and their dot product, as it is": lambda: torch.dot(a.float(), b.float()),
        "sum of the products in float32": lambda: (a * b).sum(dtype=torch.float32),
    }
    for task in sums.values():
        task()
    for name, own_s in seconds_each(sums, part, turn_s=0.05).items():
        add([name, f"{1e3 * own_s:.3f}"])

"""A convolution along one axis of a map and the pooling of that axis, in one step."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from audiostride.strides.matrices import AxisPooling, SpectrumPooling
from audiostride.strides.pooling import cast_for_product, inner_product, multiply_axis, pool_axis


def stack_taps(matrix: Tensor, offsets: range) -> Tensor:
    """Row i of the matrix for every tap, then row i + 1: what it does to ``x[t + offset]``, zero beyond the ends.

    Shape:
        matrix: ``(rows, n)``. Result: ``(rows * len(offsets), n)``.
    """
    n = matrix.shape[1]
    shifted = []
    for offset in offsets:
        steps = min(abs(offset), n)  # beyond that nothing is left of a shifted axis
        kept = matrix[:, : n - steps] if offset > 0 else matrix[:, steps:]
        shifted.append(F.pad(kept, (steps, 0) if offset > 0 else (0, steps)))
    return torch.stack(shifted, dim=1).flatten(0, 1)


def tap_groups(taps: int, inner: int) -> list[range]:
    """Taps that are pooled in one product: all where their channels then lie side by side, else one at a time."""
    return [range(taps)] if inner == 1 else [range(tap, tap + 1) for tap in range(taps)]


def centred(taps: range, count: int) -> range:
    """Offsets of taps from the middle of a kernel of `count`."""
    return range(taps.start - count // 2, taps.stop - count // 2)


def convolve_taps(x: Tensor, weight: Tensor, bias: Tensor, matrix: Tensor) -> Tensor:
    """Pool the taps of a kernel, then add up their 1x1 convolutions.

    Shape:
        x: ``(outer, n, inner, C)``; weight: ``(C_out, taps, C)``; matrix: ``(n_out, n)``.
        Result: ``(outer * n_out * inner, C_out)``.
    """
    outer, n, inner, channels = x.shape
    flat = x.reshape(outer, n, inner * channels)
    count = weight.shape[1]
    result = bias
    for taps in tap_groups(count, inner):
        pooled = multiply_axis(stack_taps(matrix, centred(taps, count)), flat).reshape(-1, len(taps) * channels)
        kernel = weight[:, taps.start : taps.stop].flatten(1).T
        result = torch.addmm(result, pooled, kernel) if result is bias else result.addmm_(pooled, kernel)
    return result


class _ConvolveAndPool(torch.autograd.Function):
    """`convolve_taps` that keeps its input only; the pooled taps are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: Tensor | None,
        matrix: Tensor,
        synthesis: Tensor | None,
        analysis: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, matrix, synthesis, analysis)
        ctx.stride_dtype = None if stride is None else stride.dtype
        return convolve_taps(x, weight, bias, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, matrix, synthesis, analysis = ctx.saved_tensors
        outer, n, inner, channels = x.shape
        flat = x.reshape(outer, n, inner * channels)
        n_out, count = len(matrix), weight.shape[1]
        for_x: Tensor | None = None
        for_weight = torch.empty_like(weight)
        for_stride = None if analysis is None else torch.zeros((), dtype=ctx.stride_dtype, device=x.device)
        for taps in tap_groups(count, inner):
            group, offsets = slice(taps.start, taps.stop), centred(taps, count)
            shifted = stack_taps(matrix, offsets)
            pooled = multiply_axis(shifted, flat).reshape(-1, len(taps) * channels)
            for_weight[:, group] = (gradient.T @ pooled).reshape(-1, len(taps), channels)
            for_taps = gradient @ weight[:, group].flatten(1)
            if ctx.needs_input_grad[0]:
                back = for_taps.reshape(outer, n_out * len(taps), inner * channels)
                transposed = shifted.T.expand(outer, -1, -1)
                for_x = torch.bmm(transposed, back) if for_x is None else for_x.baddbmm_(transposed, back)
            if for_stride is not None:
                ramp_of_x = multiply_axis(stack_taps(analysis, offsets), flat)
                # Taps lie beside each other in it as in the result: the same numbers, in the same order.
                ramp_of_g = for_taps.reshape(outer, n_out, len(taps) * inner * channels)
                ramp_of_g = ramp_of_g if synthesis is None else multiply_axis(synthesis.T, ramp_of_g)
                for_stride = for_stride + inner_product(ramp_of_g, ramp_of_x, ctx.stride_dtype)
        shaped = None if for_x is None else for_x.reshape(x.shape)
        return shaped, for_weight, gradient.sum(0), for_stride, None, None, None


def convolve_and_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, pooling: AxisPooling | SpectrumPooling, *, axis: int
) -> Tensor:
    """A convolution along one axis of a map, with zero padding of half its kernel, and the pooling of that axis.

    Either one after the other, or at once: pooling a map shifted by a tap is a product with shifted columns of the
    pooling's matrix, so ``P (sum_d K_d x[t + d]) = sum_d K_d (P_d x)``: every tap is pooled, and the kernel becomes a
    1x1 convolution of the short map. Exactly the same, zero padding included. Whichever takes fewer operations is
    done: in one step a stride of 2 saves half the convolution, and its full-length result is never stored.

    Args:
        x: Map; stored with its channels together (channels_last) there is no copy.
        weight: Kernel of odd length along `axis`, length 1 along the other.
        bias: Offset per channel, or None.
        pooling: How `axis` is pooled.
        axis: -2 (time) or -1 (mel).

    Shape:
        x: ``(B, C, T, M)``; weight: ``(C_out, C, k, 1)`` or ``(C_out, C, 1, k)``; bias: ``(C_out,)``.
        Result: ``(B, C_out, T_out, M)`` or ``(B, C_out, T, M_out)``, channels_last.
    """
    taps = weight.shape[axis]
    training = torch.is_grad_enabled() and x.device.type == "cpu"
    if isinstance(pooling, SpectrumPooling) or not pays_at_once(
        weight.shape[1],
        weight.shape[0],
        taps,
        x.shape[axis],
        len(pooling.matrix),
        share=TRAINED_AT_ONCE if training else 1.0,
    ):
        padding = [taps // 2 if a == axis else 0 for a in (-2, -1)]
        return pool_axis(F.conv2d(x, weight, bias, padding=padding), axis, pooling)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    x, weight, bias = cast_for_product(x), cast_for_product(weight), cast_for_product(bias)
    batch, channels, n_t, n_m = x.shape
    mapped = x.movedim(1, -1)  # (B, T, M, C)
    # Axes in front of the pooled one, the pooled one, those between it and the channels.
    shape = (batch, n_t, n_m, channels) if axis == -2 else (batch * n_t, n_m, 1, channels)
    mapped = mapped.reshape(shape)
    kernel = weight.flatten(2).mT  # (C_out, taps, C), contiguous for a weight in channels_last
    matrix, synthesis, analysis = pooling.matrices(x.dtype)
    if torch.is_grad_enabled():
        result = _ConvolveAndPool.apply(mapped, kernel, bias, pooling.stride, matrix, synthesis, analysis)
    else:
        result = convolve_taps(mapped, kernel, bias, matrix)
    n_t, n_m = (len(matrix), n_m) if axis == -2 else (n_t, len(matrix))
    maps: Tensor = result.reshape(batch, n_t, n_m, len(weight)).movedim(-1, 1)
    return maps


# In training on a CPU the multiply-adds of a pooling take twice as long as those of a convolution, and taps are pooled
# once more in backward. Measured on two cores, forward and backward, widths 0.125 to 1, one thread and two, float32 and
# bfloat16: at 0.6 to 0.7 of the multiply-adds both orders take as long; at 0.85 at once takes 1.2 to 2.0 times as long.
TRAINED_AT_ONCE = 0.65


def pays_at_once(channels: int, channels_out: int, taps: int, n: int, n_out: int, *, share: float = 1.0) -> bool:
    """Whether pooling every tap, then convolving the short map, takes less than `share` of the other order's products.

    Products are multiply-adds for one place on the other axis.
    """
    at_once = taps * n_out * channels * (n + channels_out)
    in_turn = n * channels_out * (taps * channels + n_out)
    return at_once < share * in_turn

"""Batch norm over the examples of all processes that train together on CPUs."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, in both directions: each one's loss depends on the values of all."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        summed = values.contiguous().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed


class BatchNormOverProcesses(nn.BatchNorm2d):
    """Batch norm of two axes with the mean and variance of all processes' examples, which are as many in each.

    For processes on CPUs; torch's own ``SyncBatchNorm`` is for GPUs only. Outside of training it is plain batch norm.

    Shape:
        input: ``(B, C, H, W)``. Result: the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        n_values = input.numel() // input.shape[1] * dist.get_world_size()
        axes = (0, 2, 3)
        mean = _sum_over_processes(input.sum(axes)) / n_values
        centred = input - mean[:, None, None]
        variance = _sum_over_processes(centred.square().sum(axes)) / n_values
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, factor)
                self.running_var.lerp_(variance * (n_values / max(1, n_values - 1)), factor)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]


def _sum_over_processes(values: Tensor) -> Tensor:
    summed: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return summed


def share_batch_norm_(model: nn.Module) -> None:
    """Let the batch norms of a model on the CPU see the examples of all processes; weights and names stay.

    Those whose weights do not learn see none, and stay as they are.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and child.weight.requires_grad:
                shared = BatchNormOverProcesses(child.num_features, eps=child.eps, momentum=child.momentum)
                shared.to(child.weight).load_state_dict(child.state_dict())
                setattr(parent, name, shared)

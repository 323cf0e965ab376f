"""A step's loss and gradients as a CUDA graph: the host starts one thing instead of a thousand small ones."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

STEADY = 5  # steps of one shape before a graph is made of it, which takes about as long as they do

Compute = Callable[[dict[str, Tensor]], Tensor]
"""Leaves the gradients of a batch in the parameters; the result is its loss, without an autograd graph of its own."""
Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
"""Makes a graph of what is computed; the results are what it computes, and its replay."""


class StepGraph:
    """Computes the loss and gradients of batches, as a CUDA graph where batches and maps keep their shapes.

    Small kernels run faster than a host starts them one by one: a step of DiffStride has more than a thousand. A graph
    reads and writes the same memory each time it is replayed: batches are copied to where the first one lay, and what
    is added up must be so in place.

    Args:
        compute: What is computed of a batch; the host may read nothing of it.
        module: Whose parameters get gradients.
        record: What makes graphs.

    Attributes:
        failure: Why steps cannot be a graph, once that was tried in vain; else None.
    """

    def __init__(self, compute: Compute, module: nn.Module, record: Record | None = None) -> None:
        self._compute, self._module = compute, module
        self._record = CudaRecorder() if record is None else record
        self._shapes: Hashable = None
        self._seen = 0
        self._kept: _Recorded | None = None
        self.failure: str | None = None

    def __call__(self, batch: dict[str, Tensor], key: Hashable) -> Tensor:
        """The loss of a batch; its gradients are then in the parameters, which had none.

        Args:
            batch: The batch, on the device.
            key: What the shapes of maps depend on beside the batch's.
        """
        shapes = key, tuple((name, values.shape, values.dtype) for name, values in batch.items())
        if shapes != self._shapes:
            self._shapes, self._seen, self._kept = shapes, 0, None
        self._seen += 1
        if self._kept is None and self._seen > STEADY and self.failure is None:
            self._kept = self._make(batch)
        if self._kept is None:
            return self._compute(batch)
        for name, values in batch.items():
            self._kept.batch[name].copy_(values)
        for parameter, gradient in self._kept.gradients:
            parameter.grad = gradient
        self._kept.replay()
        return self._kept.loss.clone()

    def _make(self, batch: Mapping[str, Tensor]) -> "_Recorded | None":
        """A graph of the step; None where it cannot be one: then steps go on kernel by kernel."""
        inputs = {name: values.clone() for name, values in batch.items()}
        parameters = list(self._module.parameters())
        try:
            loss, replay = self._record(lambda: self._compute(inputs))
        except RuntimeError as error:
            self.failure = str(error).strip().splitlines()[0]
            tqdm.write(f"steps are computed kernel by kernel, since a CUDA graph of them failed: {self.failure}")
            for parameter in parameters:
                parameter.grad = None
            return None
        return _Recorded(inputs, loss, [(each, each.grad) for each in parameters if each.grad is not None], replay)


class _Recorded(NamedTuple):
    """A graph, and the memory that it reads and writes."""

    batch: dict[str, Tensor]
    loss: Tensor
    gradients: list[tuple[nn.Parameter, Tensor]]
    replay: Callable[[], None]


class CudaRecorder:
    """Records CUDA graphs that follow each other in one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record what is computed, without computing it.

        Raises:
            RuntimeError: Something that a graph cannot hold, such as a number that the host reads.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        # Other threads, which read batches into pinned memory, are none of its business.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = compute()
        return loss, graph.replay

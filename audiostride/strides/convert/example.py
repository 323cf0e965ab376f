"""What a network is called with, and computing with the sizes of tensors only."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

Example = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]


def as_arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call: an example is a tensor, a sequence of arguments, or a dict of named ones."""
    if isinstance(example, dict):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})


def strip_example(
    example: Example, fake: FakeTensorMode | None, name_input: Callable[[Tensor], object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with tensors that have no values, each of which is named; others stay what they are."""

    def strip(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        stripped = torch.empty_like(each, device="meta") if fake is None else fake.from_tensor(each)
        name_input(stripped)
        return stripped

    args, kwargs = as_arguments(example)
    return tuple(map(strip, args)), {name: strip(each) for name, each in kwargs.items()}


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors in the result of a model, which may be a tensor, a sequence, a dict or a dataclass of such."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    elif hasattr(result, "__dataclass_fields__"):
        result = list(vars(result).values())
    return [each for item in result for each in tensors_of(item)] if isinstance(result, tuple | list) else []


@contextmanager
def without_values(model: nn.Module, fake: FakeTensorMode | None) -> Iterator[None]:
    """Compute with sizes only: with the parameters and buffers of a model on the meta device, or with fake tensors."""
    if fake is not None:
        with torch.no_grad(), fake:
            yield
        return
    tables = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before: list[dict[str, Any]] = [dict(table) for table in tables]
    emptied: dict[int, Tensor] = {}  # tensors that modules share stay shared

    def empty(tensor: Tensor) -> Tensor:
        if id(tensor) not in emptied:
            meta = torch.empty_like(tensor, device="meta")
            emptied[id(tensor)] = nn.Parameter(meta, False) if isinstance(tensor, nn.Parameter) else meta
        return emptied[id(tensor)]

    try:
        for table in tables:
            cast(Any, table).update({name: empty(tensor) for name, tensor in table.items() if tensor is not None})
        with torch.no_grad(), torch.device("meta"):
            yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            cast(Any, table).update(kept)


@contextmanager
def without_log() -> Iterator[None]:
    """Fake tensors write the traceback of every error to the log, which is raised anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before

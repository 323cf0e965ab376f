"""What a conversion has done, as a table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from audiostride.strides.convert.changes import holder_name
from audiostride.strides.convert.pooled_modules import Pooled, PooledAlone
from audiostride.strides.convert.sites import Sites, may_shrink
from audiostride.strides.convert.steps import Step

if TYPE_CHECKING:
    import pandas as pd


def make_table(
    model: nn.Module, converted: nn.Module, sites: Sites, results: Mapping[str, tuple[int, ...]]
) -> "pd.DataFrame":
    """A row for each module with strides; see `convert_downsampling`.

    Args:
        model, converted: The network before and after.
        sites: What was found in it.
        results: Shapes of the results of the modules of `converted`.
    """
    import pandas as pd  # which those who want the layer alone need not load

    rows: list[dict[str, Any]] = []

    def add(step: Step, layer: int | None, becomes: str, size_after: tuple[int, ...] | None) -> None:
        rows.append(
            {
                "layer": layer,
                "module": step.place.module + ("" if step.place.call is None else f" (call {step.place.call + 1})"),
                "was": describe(step, model),
                "becomes": becomes,
                "strides": step.strides,
                "size_in": step.n_in,
                "size_before": step.n_out,
                "size_after": size_after,
            }
        )

    holders = dict(converted.named_modules())
    for number, group in enumerate(sites.groups, start=1):
        for step in group.steps:
            name = holder_name(step.place)
            size = results.get(name)
            size = None if size is None else size[len(size) - len(step.n_in) :]
            add(step, number, describe_holder(holders.get(name)), size)
    for step in sites.covering:
        add(step, None, "adaptive pool over the whole map", step.n_out)
    for step in sites.left:
        add(step, None, "the same", step.n_out)
    seen = {row["module"] for row in rows}
    called = {name for recording in sites.recordings for name in recording.arguments}
    for name, module in model.named_modules():
        if may_shrink(module) and name not in called | seen:
            rows.append({"module": name, "was": type(module).__name__, "becomes": "the same: it was not called"})
    columns = ["layer", "module", "was", "becomes", "strides", "size_in", "size_before", "size_after"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def describe(step: Step, model: nn.Module) -> str:
    """A step in words, such as ``Conv2d 3x3, stride 2``.

    >>> import torch
    >>> from audiostride.strides.convert.recording import record
    >>> network = nn.Sequential(nn.Conv2d(1, 1, 3, stride=(2, 1)))
    >>> describe(record(network, torch.zeros(1, 1, 8, 8)).steps[0], network)
    'Conv2d 3x3, stride 2x1'
    """
    kind = type(model.get_submodule(step.place.module)).__name__ if step.place.call is None else step.kind
    if step.kind == "module":
        return kind
    strides = step.strides[:1] if len(set(step.strides)) == 1 else step.strides
    return f"{kind} {'x'.join(map(str, step.kernel))}, stride {'x'.join(map(str, strides))}"


def describe_holder(module: nn.Module | None) -> str:
    """What stands in the place of a step."""
    if not isinstance(module, Pooled):
        own = "the same, with strides of its own"
        return own if module is None else f"{type(module).__name__}, stride {getattr(module, 'stride', 1)}"
    mixin, base = module.made_of
    pooling = type(module.downsampling).__name__
    if mixin is PooledAlone or base is nn.Identity:
        return pooling
    if getattr(module, "pool_first", False):
        return f"{pooling}, {base.__name__}"
    return f"{base.__name__}, {pooling}"

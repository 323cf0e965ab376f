"""What is done to a network: layers behind modules, adaptive pools, other strides, forwards written anew."""

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from audiostride.errors import InputError
from audiostride.strides.convert.example import tensors_of, without_values
from audiostride.strides.convert.functional_calls import Rewriting
from audiostride.strides.convert.pooled_modules import (
    Pooled,
    PooledAlone,
    PooledAverage,
    PooledConvolution,
    PooledMax,
    pool_after_,
)
from audiostride.strides.convert.sites import WHO, Sites
from audiostride.strides.convert.steps import CONVOLUTIONS, Place, Step

ADAPTIVE: dict[tuple[str, int], type[nn.Module]] = {
    ("average pool", 1): nn.AdaptiveAvgPool1d,
    ("average pool", 2): nn.AdaptiveAvgPool2d,
    ("average pool", 3): nn.AdaptiveAvgPool3d,
    ("max pool", 1): nn.AdaptiveMaxPool1d,
    ("max pool", 2): nn.AdaptiveMaxPool2d,
    ("max pool", 3): nn.AdaptiveMaxPool3d,
}


def holder_name(place: Place) -> str:
    """The module that has the pooling layer of a place as its child ``downsampling``."""
    return place.module if place.call is None else f"{place.module}.downsampling_{place.call}".lstrip(".")


class Changes:
    """Changes of one network, in place; calls in a module's own forward are collected, and written by `finish`.

    Args:
        model: The network.
        sites: Where it becomes smaller.
    """

    def __init__(self, model: nn.Module, sites: Sites) -> None:
        self.model, self.sites = model, sites
        self._rewritings: dict[str, Rewriting] = {}

    def pool_after(self, step: Step, layer: nn.Module, *, drop: bool) -> None:
        """Take the strides out of a step, and put a layer behind it.

        Args:
            step: The step.
            layer: What follows.
            drop: Whether a pool is left out where maps of that size become of it all the same.
        """
        module = self._module_of(step)
        if step.kind == "module":
            pool_after_(module, layer)
            return
        any_module = cast(Any, module)
        fewest = self._fewest_bins(step)
        if step.kind == "convolution":
            if step.place.call is None:
                any_module.stride = (1,) * len(any_module.stride)
            pool_first = step.place.call is None and set(step.kernel) == {1} and not any(step.padding)
            behind = (0,) * len(fewest)
            pool_after_(module, layer, PooledConvolution, pool_first=pool_first, bins_behind=behind, fewest_bins=fewest)
            return
        if getattr(module, "return_indices", False):
            raise InputError(
                f"{WHO}: {step.place} returns the places of its maxima, which pooling moves; leave=[...] it, or take a "
                "pool without return_indices"
            )
        sizes = zip(step.n_in, step.strides, step.n_out, strict=True)
        if drop and step.kernel == step.strides and all(-(-n // stride) == n_out for n, stride, n_out in sizes):
            pool_after_(module, layer, PooledAlone)
            return
        behind = (0,) * len(fewest)
        if any_module.ceil_mode:
            # Windows may begin anywhere in the map or in front of it, though they end behind it.
            behind = tuple(
                max(0, min(stride - 1, n + pad - 1))
                for stride, n, pad in zip(step.strides, fewest, step.padding, strict=True)
            )
        any_module.stride, any_module.ceil_mode = (1,) * len(fewest), False
        mixin = PooledMax if step.kind == "max pool" else PooledAverage
        pool_after_(module, layer, mixin, bins_behind=behind, fewest_bins=fewest)

    def _fewest_bins(self, step: Step) -> tuple[int, ...]:
        """The least that a convolution or pool takes without strides on each axis; 0 where it sees to that itself."""
        n_axes = len(step.kernel)
        if step.place.call is None:
            args, kwargs = self.sites.of(step.place.module).arguments[step.place.module]
            given = tensors_of([*args, *kwargs.values()])[0]
            if tuple(given.shape[given.ndim - n_axes :]) != step.n_in:
                return (0,) * n_axes  # it pads, or resizes, as the map demands
        elif step.kind == "convolution":
            return (0,) * n_axes
        return tuple(d * (k - 1) + 1 - 2 * p for k, d, p in zip(step.kernel, step.dilation, step.padding, strict=True))

    def stride(self, step: Step, strides: Sequence[int]) -> None:
        """Let a step have other strides."""
        module = self.model.get_submodule(step.place.module)
        if step.place.call is not None:
            self._rewriting(step).set_strides(step.place.call, tuple(strides))
        elif step.kind != "module" or isinstance(module, CONVOLUTIONS):
            cast(Any, module).stride = tuple(strides)
        elif set(strides) != {1}:
            raise InputError(
                f"{WHO}: with pooling 'strided' only convolutions and pools can have strides, got {tuple(strides)} for "
                f"{step.place}, a {type(module).__name__}; give it 1, or name a convolution in it"
            )

    def cover(self, step: Step) -> None:
        """Let a pool over whole maps be one whatever the size of the map."""
        adaptive = ADAPTIVE[step.kind, len(step.n_in)](1)
        if step.place.call is None:
            self.model.set_submodule(step.place.module, adaptive)
        elif self._rewriting(step).calls[step.place.call].module is not None:  # else its window goes with the map
            self._add_child(step, adaptive)

    def finish(self) -> None:
        """Write the forwards."""
        for rewriting in self._rewritings.values():
            rewriting.finish_()

    def align_branches(self) -> None:
        """Let branches that meet give the layer that they share maps of one size."""
        for group in self.sites.groups:
            # A module that is called in several places makes places of several resolutions share a layer: compared is
            # how much longer or shorter maps are there than the longest of their resolution in front.
            longest: dict[tuple[int, ...], list[int]] = {}
            for step in group.steps:
                known = longest.setdefault(self.sites.in_front(step), list(step.n_in))
                known[:] = map(max, known, step.n_in)
            gains = [
                [
                    entry - n
                    for entry, n in zip(self._entry_sizes(step), longest[self.sites.in_front(step)], strict=True)
                ]
                for step in group.steps
            ]
            largest = [max(gain) for gain in zip(*gains, strict=True)]
            for step, gain in zip(group.steps, gains, strict=True):
                holder = cast(Any, self.model.get_submodule(holder_name(step.place)))
                if hasattr(holder, "bins_behind"):
                    holder.bins_behind = tuple(
                        behind + most - own for behind, most, own in zip(holder.bins_behind, largest, gain, strict=True)
                    )

    def _entry_sizes(self, step: Step) -> tuple[int, ...]:
        """The size of what the layer of a step gets, of the map that the step had in the example."""
        holder = cast(Pooled, self.model.get_submodule(holder_name(step.place)))
        if step.place.call is not None or step.kind == "module":
            behind = getattr(holder, "bins_behind", (0,) * len(step.n_in))
            if isinstance(holder, PooledAlone) or step.kind == "module":
                return step.n_in
            return tuple(
                n + 2 * p - d * (k - 1) + b
                for n, p, d, k, b in zip(step.n_in, step.padding, step.dilation, step.kernel, behind, strict=True)
            )
        seen: list[tuple[int, ...]] = []
        hook = holder.downsampling.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
        recording = self.sites.of(step.place.module)
        args, kwargs = recording.arguments[step.place.module]
        try:
            with without_values(holder, recording.fake):
                holder(*args, **kwargs)
        finally:
            hook.remove()
        return seen[0][len(seen[0]) - len(step.n_in) :]

    def _rewriting(self, step: Step) -> Rewriting:
        name = step.place.module
        if name not in self._rewritings:
            module = self.model.get_submodule(name)
            self._rewritings[name] = Rewriting(module, name, self.sites.of(name).arguments[name])
        return self._rewritings[name]

    def _module_of(self, step: Step) -> nn.Module:
        """The module of a step; for a call one that takes its place."""
        if step.place.call is None:
            return self.model.get_submodule(step.place.module)
        call = self._rewriting(step).calls[step.place.call]
        return self._add_child(step, nn.Identity() if call.module is None else call.module)

    def _add_child(self, step: Step, child: nn.Module) -> nn.Module:
        place = step.place
        name = f"downsampling_{place.call}"
        setattr(self.model.get_submodule(place.module), name, child)
        self._rewriting(step).replace(cast(int, place.call), name)
        return child

"""Which axes must agree: labels through operations, in networks of a line or two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from audiostride.strides.convert.axes import Factor, regroup
from audiostride.strides.convert.recording import record

X = torch.zeros(2, 6, 8, 12)


class Network(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.pools = nn.ModuleList([nn.AvgPool2d(2), nn.AvgPool2d(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.pools[0](x)) + self.pools[1](x)


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "pointwise": lambda x: torch.where(x > 0, x, 2 * x).clamp(0).tanh(),
    "channels last and back": lambda x: (x.permute(0, 2, 3, 1) * torch.ones(6)).permute(0, 3, 1, 2),
    "linear over channels": lambda x: nn.functional.linear(x.permute(0, 2, 3, 1), torch.ones(6, 6)).permute(0, 3, 1, 2),
    "tokens and back": lambda x: x.flatten(2).transpose(1, 2).mT.unflatten(2, x.shape[2:]),
    "grouped channels": lambda x: x.view(2, 2, 3, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "split channels": lambda x: torch.cat(x.split([1, 5], dim=1)[::-1], dim=1),
    "chunked channels": lambda x: torch.cat(x.chunk(3, dim=1), dim=1),
    "normed": lambda x: nn.functional.layer_norm(x, x.shape[1:]),
    "softmax": lambda x: x.softmax(1),
    "padded and cut": lambda x: nn.functional.pad(x, (1, 1, 2, 2))[..., 2:-2, 1:-1],
    "scaled by channel": lambda x: x * x.mean((2, 3), keepdim=True),
    "scaled by place": lambda x: x * x.amax(1, keepdim=True),
    "stacked and summed": lambda x: torch.stack([x, x]).sum(0),
}


@pytest.mark.parametrize("name", KEPT)
def test_branches_that_meet_again_are_found_through(name: str) -> None:
    recording = record(Network(KEPT[name]), X)
    first, second = recording.steps
    find = recording.tracker.labels.find
    assert list(map(find, first.before)) == list(map(find, second.before))
    assert list(map(find, first.after)) == list(map(find, second.after))
    assert len({*map(find, first.before), *map(find, first.after)}) == 4


APART: dict[str, Callable[[Tensor], Tensor]] = {
    "resized": lambda x: nn.functional.interpolate(nn.functional.interpolate(x, scale_factor=2), scale_factor=0.5),
    "of a fixed size": lambda x: nn.functional.adaptive_avg_pool2d(x, (4, 6)),
    "every other bin": lambda x: nn.functional.pad(x, (0, 6, 0, 4))[..., ::2, ::2],
}


@pytest.mark.parametrize("name", APART)
def test_what_has_a_size_of_its_own_is_another_resolution(name: str) -> None:
    recording = record(Network(APART[name]), X)
    first, second = recording.steps
    find = recording.tracker.labels.find
    assert not set(map(find, first.after)) & set(map(find, second.after))


def test_maps_of_one_size_by_chance_are_not_joined() -> None:
    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pools = nn.ModuleList([nn.AvgPool2d(2), nn.AvgPool2d(2)])

        def forward(self, x: Tensor) -> Tensor:
            return self.pools[0](x).sum() + self.pools[1](x[:, :, ::1]).sum()

    recording = record(Chance(), X)
    find = recording.tracker.labels.find
    assert not set(map(find, recording.steps[0].after)) & set(map(find, recording.steps[1].after))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([2, 12], [["a"], ["b", "c"]]),
        ([24], [["a", "b", "c"]]),
        ([2, 1, 3, 4], [["a"], [None], ["b"], ["c"]]),
        ([6, 2, 2], [["a", "b"], [None], [None]]),
        ([2, 3, 4], [["a"], ["b"], ["c"]]),
        ([4, 6], [[None], [None]]),
    ],
)
def test_reshaped_axes_keep_whole_factors(sizes: list[int], expected: list[list[str | None]]) -> None:
    names = {"a": 0, "b": 1, "c": 2, None: None}
    axes = tuple((Factor(n, label),) for n, label in ((2, 0), (3, 1), (4, 2)))
    found = [[factor.label for factor in axis] for axis in regroup(axes, sizes)]
    assert found == [[names[name] for name in axis] for axis in expected]

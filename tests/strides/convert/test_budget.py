"""What converted networks cost, counted and smooth, and their strides on the surface of equal cost."""

import copy
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiostride import convert_downsampling, freeze_downsampling, project_strides_
from audiostride.errors import InputError
from audiostride.strides.convert import network_budget
from audiostride.strides.convert.cost import network_cost
from audiostride.strides.diffstride import diffstride_layers
from audiostride.strides.matrices import LONG_AXIS, pooling_cost

Network = tuple[nn.Module, Tensor]


def count(model: nn.Module, x: object) -> int:
    """Multiply-adds that torch counts while a network runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*(x if isinstance(x, tuple) else (x,)))
    return counter.get_total_flops() // 2


def scale_(model: nn.Module, factor: float) -> None:
    for layer in diffstride_layers(model):
        layer.set_strides_([factor * stride for stride in layer.strides.tolist()])


def test_torch_counts_the_same_for_a_frozen_network(
    conversion: tuple[nn.Module, Tensor, nn.Module, pd.DataFrame],
) -> None:
    model, x, converted, _ = conversion
    converted.eval()
    assert sum(network_cost(model.eval(), x).counted()) == count(model, x)
    scale_(converted, 1.3)
    cost = network_cost(converted, x)
    weights, pooling = cost.counted()
    by_fft = sum(n * pooling_cost(axis.n, axis.n_out) for n, axis, _ in cost.pooling if axis.n_out >= LONG_AXIS)
    assert weights + pooling - by_fft == count(freeze_downsampling(converted, x), x)  # which leaves FFTs out
    assert pooling > 0
    # Maps that have no whole number of bins are up to a bin larger than the smooth cost has them.
    assert 0.7 < cost.smooth().item() / (weights + pooling) <= 1.001


def test_the_smooth_cost_falls_with_every_stride_as_the_counted_one_does(small_network: Network) -> None:
    model, x = small_network
    converted, _ = convert_downsampling(model, x)
    converted.eval()
    cost = network_cost(converted, x)
    before, whole = cost.smooth().item(), sum(cost.counted())
    for layer in diffstride_layers(converted):
        values = layer.strides.tolist()
        (slopes,) = torch.autograd.grad(cost.smooth(), layer.strides)
        for axis in range(len(values)):
            changed = [2 * value if each == axis else value for each, value in enumerate(values)]
            layer.set_strides_(changed)
            fallen = cost.smooth().item() / before
            # The same cost followed anew, at the sizes that it then has.
            assert fallen == pytest.approx(sum(network_cost(converted, x).counted()) / whole, abs=0.13)
            assert slopes[axis] < 0
            layer.set_strides_(values)


def test_attention_costs_the_square_of_its_places() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 8, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).transpose(1, 2)  # (B, places, channels)
            return (x @ x.transpose(1, 2)).softmax(-1) @ x

    converted, _ = convert_downsampling(Attending(), torch.zeros(1, 4, 240))
    cost = network_cost(converted, torch.zeros(1, 4, 240))
    (layer,) = diffstride_layers(converted)
    for stride in (2.0, 3.0, 4.0):
        n_out = 240 / stride
        expected = 240 * 4 * 8 * 3 + 8 * 240 * n_out + 2 * 8 * n_out**2
        assert cost.smooth({layer: torch.tensor([stride])}).item() == pytest.approx(expected)


def test_strides_come_to_the_surface_and_then_under_the_budget(named_network: Callable[[str], Network]) -> None:
    (model, x), text = named_network("resnet18"), "1.5x"
    converted, _ = convert_downsampling(model.eval(), x, budget=text)
    allowed = float(text[:-1]) * count(model, x)
    keeper = network_budget(converted, x, text, reference=model)
    assert keeper.budget == allowed
    assert network_cost(converted, x).smooth().item() == pytest.approx(allowed, rel=0.08)  # followed at other sizes
    scale_(converted, 1.2)
    project_strides_(converted)
    keeper.bring_()
    keeper.fit_()
    assert 0.85 * allowed < count(freeze_downsampling(converted, x), x) <= allowed
    clone = copy.deepcopy(converted)
    keeper.fit_()
    for ours, theirs in zip(diffstride_layers(converted), diffstride_layers(clone), strict=True):
        assert torch.equal(ours.strides, theirs.strides)


def test_a_budget_of_multiply_adds_is_for_each_example() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())
    for batch in (1, 3):
        x = torch.zeros(batch, 1, 100, 64)
        converted, _ = convert_downsampling(model, x, budget="2M")
        assert network_cost(converted, x).smooth().item() == pytest.approx(2e6 * batch, rel=1e-4)


def test_bad_budgets_say_what_to_do() -> None:
    model, x = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1)), torch.zeros(1, 1, 100, 64)
    converted, _ = convert_downsampling(model, x)
    with pytest.raises(InputError, match=r"must lie between 512\.5k and 8\.858M multiply-adds per example, .* got 1G"):
        network_budget(converted, x, "1G")
    with pytest.raises(InputError, match=r"0\.5x must have a reference, the network that it is relative to"):
        network_budget(converted, x, "0.5x")
    with pytest.raises(InputError, match="model must have layers such as DiffStride2d, got none; convert it first"):
        network_budget(model, x, "1M")
    with pytest.raises(
        InputError, match="budget must be given with pooling 'diffstride', which it moves, got 'strided'"
    ):
        convert_downsampling(model, x, pooling="strided", budget="1M")
    with pytest.raises(InputError, match="example must be what the network takes, but it fails"):
        network_budget(converted, torch.zeros(1, 5), "1M")

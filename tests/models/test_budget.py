"""Strides on the surface of equal cost, and the counted cost of what is left at the end."""

from itertools import product
from typing import Any

import pytest
import torch

from audiostride.errors import InputError
from audiostride.models import AudioClassifier, ClassifierConfig
from audiostride.models.budget import budget_per_window, classifier_budget
from audiostride.models.cost import multiply_adds, smooth_cost
from audiostride.strides.diffstride import diffstride_layers

KINDS: list[dict[str, Any]] = [
    {"width": 0.125},
    {"width": 0.125, "shared_strides": True, "pool_after": "block"},
    {"width": 0.125, "max_stride": 2.5, "size": "folded"},
    {"encoder": "resnet18", "width": 0.125},
    {"encoder": "bcresnet"},
]


def build(**settings: Any) -> AudioClassifier:
    torch.manual_seed(0)
    return AudioClassifier(ClassifierConfig(tasks={"word": ["no", "yes"]}, **settings))


def strides_of(model: AudioClassifier) -> torch.Tensor:
    return torch.cat([layer.strides.detach() for layer in diffstride_layers(model)])


def scatter_(model: AudioClassifier, *, seed: int) -> None:
    """Strides from 1 to 3, at random."""
    generator = torch.Generator().manual_seed(seed)
    for layer in diffstride_layers(model):
        layer.set_strides_((1 + 2 * torch.rand(layer.strides.numel(), generator=generator)).tolist())
    model.project_strides_()


@pytest.mark.parametrize(
    ("kind", "text"),
    [*product(KINDS, ("0.6x", "1x", "2x")), ({"encoder": "timm:test_resnet"}, "1x")],
    ids=lambda each: each if isinstance(each, str) else " ".join(map(str, each.values())),
)
def test_from_anywhere_strides_come_to_the_surface_and_then_under_the_budget(kind: dict[str, Any], text: str) -> None:
    model = build(**kind)
    keeper, budget = classifier_budget("test", model, text), budget_per_window("test", text, model.config)
    for seed in range(2):
        scatter_(model, seed=seed)
        keeper.bring_()
        assert smooth_cost(model).item() == pytest.approx(budget, rel=1e-5)  # of strides in float32
        assert (strides_of(model) >= 1).all()
        assert (strides_of(model) <= kind.get("max_stride", 100)).all()
        keeper.fit_()
        counted = multiply_adds(model)
        assert 0.85 * budget < counted <= budget  # maps of a few bins change in large steps
        at_rest = strides_of(model)
        keeper.fit_()
        assert torch.equal(strides_of(model), at_rest)


def test_the_way_back_is_along_the_gradient_of_the_cost_in_the_logarithms_of_strides() -> None:
    model = build(width=0.125)
    scatter_(model, seed=0)
    before = strides_of(model).log().double()
    layers = diffstride_layers(model)
    cost = smooth_cost(model)
    slopes = torch.cat(torch.autograd.grad(cost.log(), [layer.strides for layer in layers]))
    gradient = (slopes * strides_of(model)).double()  # in logarithms
    classifier_budget("test", model, repr(0.999 * cost.item())).bring_()
    moved = strides_of(model).log().double() - before
    assert torch.cosine_similarity(moved, gradient, dim=0).item() == pytest.approx(-1, abs=1e-4)


def test_a_stride_at_its_limit_stays_and_the_others_do_it_all() -> None:
    model = build(width=0.125)
    first, *others = diffstride_layers(model)
    first.set_strides_([1.0, 1.0])
    budget = 1.2 * smooth_cost(model).item()
    classifier_budget("test", model, repr(budget)).bring_()
    assert first.strides.tolist() == pytest.approx([1.0, 1.0], abs=2e-3)
    assert smooth_cost(model).item() == pytest.approx(budget, rel=1e-5)
    assert any(layer.strides.min() < 1.99 for layer in others)


def test_where_almost_all_strides_are_at_their_limits_the_last_one_still_gets_there() -> None:
    model = build(width=0.125)
    *others, last = diffstride_layers(model)
    for layer in others:
        layer.set_strides_([1.0, 1.0])
    last.set_strides_([3.0, 1.0])  # of a small share of the cost
    budget = 1.01 * smooth_cost(model).item()
    classifier_budget("test", model, repr(budget)).bring_()
    assert smooth_cost(model).item() == pytest.approx(budget, rel=1e-5)


def test_strides_that_are_not_finite_stay_for_whoever_trains_to_see() -> None:
    model = build(width=0.125)
    keeper = classifier_budget("test", model, "1x")
    with torch.no_grad():
        diffstride_layers(model)[0].strides[0] = torch.nan
    before = strides_of(model)
    keeper.bring_()
    torch.testing.assert_close(strides_of(model), before, equal_nan=True, rtol=0, atol=0)


def test_a_budget_is_relative_to_strided_convolution_or_a_number_per_second() -> None:
    config = build(width=0.125, window_s=0.5).config
    strided = multiply_adds(build(width=0.125, window_s=0.5, pooling="strided"))
    assert budget_per_window("test", "0.5x", config) == 0.5 * strided
    assert budget_per_window("test", " 1X", config) == strided
    for text in ("5M", "5000k", "5e6", "0.005g", "5000000"):
        assert budget_per_window("test", text, config) == 2.5e6
    with pytest.raises(InputError, match=r"test: budget must lie between 77\.92k and 576\.3M multiply-adds per sec"):
        classifier_budget("test", build(width=0.125), "1k")


@pytest.mark.parametrize("text", ["0", "0x", "-1x", "half", "5Q", "", "nan", "inf", "1e999", "1.2.3", "x"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"such as 0\.5x, or a number of multiply-adds, .* such as 5M, got"):
        budget_per_window("test", text, build(width=0.125).config)

"""Converted networks: sizes, shared layers, weights, gradients, freezing."""

import copy
import pickle
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import (
    DiffStride1d,
    DiffStride2d,
    SpectralPool2d,
    convert_downsampling,
    freeze_downsampling,
    project_strides_,
)
from audiostride.strides.diffstride import diffstride_layers
from audiostride.strides.frozen_pool import FrozenPool

Network = tuple[nn.Module, Tensor]
Conversion = tuple[nn.Module, Tensor, nn.Module, pd.DataFrame]


def shapes_of(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of the result of every module of a model in evaluation."""
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, args, result, name=name: (
                shapes.__setitem__(name, tuple(result.shape)) if isinstance(result, Tensor) else None
            )
        )
        for name, module in model.named_modules()
        if name
    ]
    with torch.no_grad():
        copied = model.training
        model.eval()(x)
        model.train(copied)
    for hook in hooks:
        hook.remove()
    return shapes


def test_every_map_has_the_size_that_it_had_at_the_strides_of_the_network(conversion: Conversion) -> None:
    model, x, converted, table = conversion
    before, after = shapes_of(model, x), shapes_of(converted, x)
    assert len(before) > 5
    assert {name: after[name] for name in before} == before
    learned = table[table["layer"].notna()]
    assert learned["size_before"].tolist() == learned["size_after"].tolist()


def test_settings_reach_every_layer(small_network: Network) -> None:
    model, x = small_network
    for options, ramp_bins in (({}, 4.0), ({"size": "folded"}, 8.0), ({"size": "folded", "ramp_bins": 3}, 3.0)):
        converted, _ = convert_downsampling(model, x, max_stride=3.5, **options)  # type: ignore[arg-type]
        layers = diffstride_layers(converted)
        assert layers
        settings = {axis for layer in layers for axis in layer.axes}
        assert settings == {(options.get("size", "nominal"), ramp_bins, 3.5)}


def test_everything_has_a_gradient(conversion: Conversion, logits_of: Callable[[object], Tensor]) -> None:
    _, x, converted, _ = conversion
    assert converted.training
    # Not the plain sum: batch norms right before a sum would give everything in front of them a gradient of zero.
    logits = logits_of(converted(x))
    logits.mul(torch.randn(logits.shape)).sum().backward()
    assert [name for name, each in converted.named_parameters() if each.grad is None] == []
    assert all((layer.strides.grad != 0).all() for layer in diffstride_layers(converted))


def test_weights_keep_their_names_and_values_and_the_network_stays_as_it_was(network: Network) -> None:
    model, x = network
    before = copy.deepcopy(model.state_dict())
    converted, _ = convert_downsampling(model, x)
    after = converted.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.rsplit(".", 1)[-1] for name in set(after) - set(before)} == {"strides"}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert not diffstride_layers(model)
    result = converted.load_state_dict(before, strict=False)
    assert not result.unexpected_keys


def test_maps_of_other_sizes_go_through_after_steps_of_training(
    small_network: Network, logits_of: Callable[[object], Tensor]
) -> None:
    model, x = small_network
    converted, _ = convert_downsampling(model, x)
    layers = diffstride_layers(converted)
    for values in ([1.0, 1.0], [1.3, 2.9], [7.7, 1.9], [0.2, 300.0]):
        with torch.no_grad():
            for layer in layers:
                layer.strides.copy_(torch.tensor(values[: layer.n_axes]))
        project_strides_(converted)
        assert torch.isfinite(logits_of(converted(x))).all()
    assert all((layer.strides >= 1).all() for layer in layers)


def test_a_frozen_copy_computes_the_same(conversion: Conversion, logits_of: Callable[[object], Tensor]) -> None:
    _, x, converted, _ = conversion
    with torch.no_grad():  # not those that it started with
        for layer in diffstride_layers(converted):
            layer.strides.mul_(0.8)
    frozen = freeze_downsampling(converted, x)
    assert not diffstride_layers(frozen)
    assert any(isinstance(module, FrozenPool) for module in frozen.modules())
    converted.eval()
    with torch.no_grad():
        expected, found = logits_of(converted(x)), logits_of(frozen(x))
    # Two orders of float32 products.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["spectral", "strided"])
def test_other_poolings_run_with_whole_strides_of_their_own(
    small_network: Network, pooling: str, logits_of: Callable[[object], Tensor]
) -> None:
    model, x = small_network
    converted, table = convert_downsampling(model, x, pooling=pooling, strides=[3.0] * _count_layers(model, x))
    assert not diffstride_layers(converted)
    logits_of(converted(x)).sum().backward()
    learned = table[table["layer"].notna() & table["size_after"].notna()]
    assert (learned["size_after"] != learned["size_before"]).any() or learned.empty


def _count_layers(model: nn.Module, x: Tensor) -> int:
    return int(convert_downsampling(model, x)[1]["layer"].max())


def test_strided_with_the_network_s_own_strides_changes_nothing(network: Network) -> None:
    model, x = network
    converted, table = convert_downsampling(model, x, pooling="strided")
    assert str(converted) == str(model)
    assert table["layer"].notna().any()


# The layers that torchvision's networks share, by hand from their published plans.
SHARED = {
    "resnet18": [["conv1"], ["maxpool"], *([f"layer{n}.0.conv1", f"layer{n}.0.downsample.0"] for n in (2, 3, 4))],
    "resnet50": [["conv1"], ["maxpool"], *([f"layer{n}.0.conv2", f"layer{n}.0.downsample.0"] for n in (2, 3, 4))],
    "densenet121": [["features.conv0"], ["features.pool0"], *([f"features.transition{n}.pool"] for n in (1, 2, 3))],
    "googlenet": [["conv1.conv"], *([f"maxpool{n}"] for n in (1, 2, 3, 4))],
    "convnext_tiny": [["features.0.0"], *([f"features.{n}.1"] for n in (2, 4, 6))],
    "waveform": [["stem"], ["pool"], ["block1.conv1", "block1.shortcut.0"], ["block2.conv1", "block2.shortcut.0"]],
    "branches": [["gate", "conv", "after_reduce", " (call 1)"]],
    "spectrogram": [["blocks.0 (call 1)"], ["blocks.1 (call 1)"]],
}


@pytest.mark.parametrize(("conversion", "shared"), SHARED.items(), ids=SHARED, indirect=["conversion"])
def test_branches_that_meet_share_a_layer(conversion: Conversion, shared: list[list[str]]) -> None:
    _, _, converted, table = conversion
    groups = table[table["layer"].notna()].groupby("layer")["module"].apply(set).tolist()
    assert groups == [set(names) for names in shared]
    assert len(diffstride_layers(converted)) == len(shared)


def test_one_step_is_convolution_then_pooling_and_a_kernel_of_one_bin_comes_after_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 21, 16)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Conv2d(3, 4, 3, stride=(2, 3), padding=1)
            self.shortcut = nn.Conv2d(3, 4, 1, stride=(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + self.shortcut(x)

    model = Block()
    converted, table = convert_downsampling(model, x)
    layer = DiffStride2d((2.0, 3.0), size="nominal")
    main = F.conv2d(x, model.main.weight, model.main.bias, padding=1)
    shortcut = F.conv2d(x, model.shortcut.weight, model.shortcut.bias)
    torch.testing.assert_close(converted(x), layer(main) + layer(shortcut))
    assert table["becomes"].tolist() == ["Conv2d, DiffStride2d", "DiffStride2d, Conv2d"]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding"), [(14, 3, 2, 1), (15, 3, 2, 0), (17, 2, 2, 1), (9, 3, 3, 1)]
)
def test_a_pool_that_counts_cut_windows_does_so_without_strides(
    n: int, kernel: int, stride: int, padding: int, include: bool
) -> None:
    x = torch.randn(2, 3, n)
    pool = nn.AvgPool1d(kernel, stride, padding, ceil_mode=True, count_include_pad=include)
    converted, _ = convert_downsampling(nn.Sequential(pool), x)
    # Every window of the strided pool is one of the unstrided one: seen with the pooling layer taken away.
    converted[0].downsampling = nn.Identity()
    torch.testing.assert_close(converted(x)[..., ::stride], pool(x))


def test_a_maximum_over_cut_windows_is_that_of_the_strided_pool() -> None:
    x = torch.randn(2, 3, 14, 15) - 5
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    converted, _ = convert_downsampling(nn.Sequential(pool), x)
    converted[0].downsampling = nn.Identity()
    torch.testing.assert_close(converted(x)[..., ::2, ::2], pool(x))


def test_a_pool_may_be_left_out() -> None:
    x = torch.randn(2, 3, 16, 12)
    model = nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(3, 2))
    converted, table = convert_downsampling(model, x, pools="none")
    layer = DiffStride2d((2.0, 2.0), size="nominal")
    torch.testing.assert_close(converted[0](x), layer(x))
    assert table["becomes"].tolist() == ["DiffStride2d", "MaxPool2d, DiffStride2d"]


@pytest.mark.parametrize("stride", [1, 8])
def test_pools_over_whole_maps_become_adaptive_ones(stride: int) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.pool = nn.AvgPool2d(8, stride=stride)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.pool(x).flatten(1) + F.max_pool2d(x, 8, stride).view(x.shape[0], -1)

    x = torch.randn(2, 1, 16, 16)
    model = Classifier()
    converted, _ = convert_downsampling(model, x)
    assert isinstance(converted.pool, nn.AdaptiveAvgPool2d)
    maps = converted.conv(x)
    torch.testing.assert_close(converted(x), maps.mean((-2, -1)) + maps.amax((-2, -1)))
    with torch.no_grad():
        converted.conv.downsampling.strides.fill_(1.2)
    assert converted(x).shape == (2, 4)


def test_learn_first_adds_the_first_identity_block(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("resnet18")
    converted, table = convert_downsampling(model, x, learn_first=True)
    assert table["module"].tolist()[2] == "layer1.0"
    assert converted.layer1[0].downsampling.strides.tolist() == [1.0, 1.0]
    assert len(diffstride_layers(converted)) == 6
    converted(x).square().sum().backward()
    assert (converted.layer1[0].downsampling.strides.grad != 0).all()


def test_also_and_leave_choose_what_is_learned(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("efficientnet_b0")
    converted, table = convert_downsampling(
        model, x, leave=["features.0"], also=["features.1.0.block.0.0"], strides=[2, 1, (1, 2), 2, 2]
    )
    assert [layer.strides.tolist() for layer in diffstride_layers(converted)] == [
        [2, 2],
        [1, 1],
        [1, 2],
        [2, 2],
        [2, 2],
    ]
    assert table.set_index("module").loc["features.0.0", "becomes"] == "the same"
    assert converted.features[0][0].stride == (2, 2)


@pytest.mark.parametrize("name", ["spectrogram", "waveform", "branches"])
def test_modules_keep_their_class_and_can_be_copied_and_pickled(
    name: str, named_network: Callable[[str], Network], logits_of: Callable[[object], Tensor]
) -> None:
    model, x = named_network(name)
    converted, _ = convert_downsampling(model, x)
    for name, module in model.named_modules():
        assert isinstance(converted.get_submodule(name), type(module))
    converted.eval()
    twins = [copy.deepcopy(converted)]
    if name == "waveform":  # forwards that were written anew have no name to find them by
        twins.append(pickle.loads(pickle.dumps(converted)))
    for twin in twins:
        assert str(twin) == str(converted)
        assert torch.equal(logits_of(twin(x)), logits_of(converted(x)))
    assert isinstance(converted, type(model))


def test_dropout_of_a_rewritten_forward_follows_the_mode(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("spectrogram")
    converted, _ = convert_downsampling(model, x)
    converted.eval()
    assert torch.equal(converted(x)["logits"], converted(x)["logits"])
    converted.train()
    assert not torch.equal(converted(x)["logits"], converted(x)["logits"])


def test_modes_and_several_arguments_are_kept() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3, stride=2)

        def forward(self, x: Tensor, *, scale: float, other: Tensor) -> Tensor:
            return self.conv(x) * scale + self.conv(other)

    x = torch.randn(2, 1, 30)
    model = nn.Sequential()
    model.add_module("two", Two().eval())
    converted, _ = convert_downsampling(model.two, {"x": x, "scale": 2.0, "other": x})
    assert not converted.training
    assert isinstance(converted.conv.downsampling, DiffStride1d)
    assert converted(x, scale=3.0, other=x).shape == (2, 2, 14)


def test_the_example_and_random_numbers_are_left_alone(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("branches")
    before = x.clone()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    converted, _ = convert_downsampling(model, x, pooling="spectral")
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(x, before)
    assert any(isinstance(module, SpectralPool2d) for module in converted.modules())


@pytest.mark.parametrize("named", [False, True])
def test_a_single_layer_is_a_network_too(named: bool) -> None:
    x = torch.randn(2, 3, 10)
    converted, table = convert_downsampling(nn.Conv1d(3, 2, 3, stride=2), {"input": x} if named else x)
    assert converted(input=x).shape == (2, 2, 4)
    assert table["module"].tolist() == [""]


@pytest.mark.parametrize("name", ["resnet18", "waveform", "spectrogram"])
def test_a_converted_network_compiles_without_graph_breaks(
    name: str, named_network: Callable[[str], Network], logits_of: Callable[[object], Tensor]
) -> None:
    model, x = named_network(name)
    converted, _ = convert_downsampling(model, x)
    converted.eval()
    compiled = torch.compile(converted, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(compiled(x)), logits_of(converted(x)))


def test_auxiliary_heads_that_run_in_training_only_are_converted_too() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.head = nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            x = self.stem(x)
            return (x.mean((2, 3)), self.head(x)) if self.training else (x.mean((2, 3)),)

    x = torch.randn(2, 1, 20, 20)
    converted, table = convert_downsampling(Auxiliary().eval(), x)
    assert table[["layer", "module", "size_after"]].values.tolist() == [[1, "stem", (10, 10)], [2, "head.0", (5, 5)]]
    assert not converted.training
    assert len(converted.train()(x)) == 2


def test_maps_that_grow_again_to_each_others_sizes_keep_in_step() -> None:
    class Hourglass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer, self.inner = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.MaxPool2d(2)
            self.last = nn.Conv2d(8, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            outer = self.outer(x)
            grown = F.interpolate(self.inner(outer), size=outer.shape[-2:], mode="bilinear")
            return self.last(torch.cat([grown, outer], dim=1))

    x = torch.randn(2, 1, 22, 30)
    converted, _ = convert_downsampling(Hourglass(), x)
    with torch.no_grad():
        converted.outer.downsampling.strides.fill_(1.4)
    assert converted(x).shape == (2, 2, 16, 22)


@pytest.mark.parametrize("n", [40, 41])
def test_branches_whose_windows_fit_differently_keep_in_step(n: int) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Conv1d(2, 3, 5, stride=2, padding=2)
            self.shortcut = nn.Sequential(nn.AvgPool1d(2, ceil_mode=n % 2 == 1), nn.Conv1d(2, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + self.shortcut(x)

    x = torch.randn(2, 2, n)
    converted, table = convert_downsampling(Block(), x)
    assert table["size_after"].tolist() == table["size_before"].tolist()
    for stride in (1.0, 1.3, 2.6, 7.0):
        with torch.no_grad():
            converted.main.downsampling.strides.fill_(stride)
        assert converted(x).shape[-1] == -(-n // stride)


def test_calls_of_one_forward_are_told_apart() -> None:
    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(x, 3, stride=1, padding=1)
            x = F.max_pool2d(x, kernel_size=2)
            x = F.dropout(x, 0.5, training=self.training)
            return F.avg_pool2d(x, (1, 3), (1, 3))

    x = torch.randn(2, 3, 16, 24)
    converted, table = convert_downsampling(Calls().eval(), x)
    assert table["module"].tolist() == [" (call 2)", " (call 3)"]
    two, three = DiffStride2d((2.0, 2.0), size="nominal"), DiffStride2d((1.0, 3.0), size="nominal")
    by_hand = two(F.max_pool2d(F.max_pool2d(x, 3, stride=1, padding=1), 2, stride=1))
    torch.testing.assert_close(converted(x), three(F.avg_pool2d(by_hand, (1, 3), 1)))
    # Dropout follows the mode in a forward that was written anew.
    converted.train()
    assert not torch.equal(converted(x), converted(x))


def test_a_module_that_is_called_in_two_places_has_one_layer_in_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv1d(2, 2, 3, stride=2, padding=1)
            self.shortcuts = nn.ModuleList([nn.Conv1d(2, 2, 1, stride=2) for _ in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            for shortcut in self.shortcuts:
                x = shortcut(x) + self.shared(x)
            return x

    x = torch.randn(2, 2, 40)
    converted, table = convert_downsampling(Twice(), x)
    assert converted(x).shape == (2, 2, 10)
    assert table["layer"].tolist() == [1, 1, 1]
    assert table["module"].tolist() == ["shortcuts.0", "shared", "shortcuts.1"]
    assert len(diffstride_layers(converted)) == 1

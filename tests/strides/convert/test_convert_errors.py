"""What cannot be converted: each message names the module, the value and the way out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import DiffStride1d, InputError, convert_downsampling, freeze_downsampling

Network = tuple[nn.Module, Tensor]
X = torch.zeros(2, 3, 32, 32)


def convolutions(*others: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), *others)


def test_a_network_in_which_nothing_shrinks() -> None:
    with pytest.raises(InputError, match=r"must have convolutions or pools with strides, got none; .*also="):
        convert_downsampling(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), X)
    with pytest.raises(InputError, match=r"got none but those in leave=\['0'\]"):
        convert_downsampling(convolutions(), X, leave=["0"])


def test_a_flattening_of_a_fixed_size() -> None:
    model = convolutions(nn.Flatten(), nn.Linear(4 * 16 * 16, 5))
    with pytest.raises(
        InputError, match=r"maps of any size, but with others than its own fails in module '2'.*Adaptive"
    ):
        convert_downsampling(model, X)
    # With strides that stay there is nothing to mend.
    convert_downsampling(model, X, pooling="spectral")
    adaptive = convolutions(nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(4 * 9, 5))
    converted, _ = convert_downsampling(adaptive, X)
    assert converted(X).shape == (2, 5)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.MaxPool2d])
def test_dilation_with_strides(kind: type[nn.Module]) -> None:
    layer = nn.Conv2d(3, 4, 3, stride=2, dilation=2) if kind is nn.Conv2d else nn.MaxPool2d(3, stride=2, dilation=2)
    model = nn.Sequential(layer, nn.AvgPool2d(2))
    with pytest.raises(InputError, match=r"module '0' has strides \(2, 2\) with dilation \(2, 2\).*leave=\['0'\]"):
        convert_downsampling(model, X)
    converted, table = convert_downsampling(model, X, leave=["0"])
    assert table["module"].tolist() == ["1", "0"]
    assert converted(X).shape == model(X).shape


def test_a_transposed_convolution() -> None:
    model = convolutions(nn.ConvTranspose2d(4, 3, 2, stride=2))
    with pytest.raises(InputError, match=r"module '1' is a transposed convolution with strides \(2, 2\).*interpolate"):
        convert_downsampling(model, X)
    assert convert_downsampling(model, X, leave=["1"])[0](X).shape == X.shape


class Asking(nn.Module):
    """Looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


def test_control_flow_on_values() -> None:
    with pytest.raises(InputError, match=r"module '1' looks at values.*control flow.*one by one"):
        convert_downsampling(nn.Sequential(nn.Identity(), Asking()), X)


class Branching(nn.Module):
    """A functional pool in a forward that depends on sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if x.shape[-1] > 3 else x


def test_control_flow_around_a_functional_pool() -> None:
    with pytest.raises(InputError, match=r"module '0' \(Branching\) has control flow.*nn\.AvgPool2d.*leave=\['0'\]"):
        convert_downsampling(nn.Sequential(Branching()), X)


def test_control_flow_on_sizes_elsewhere_is_followed() -> None:
    class Elsewhere(Branching):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x) if x.shape[-1] > 3 else x

    converted, _ = convert_downsampling(nn.Sequential(Elsewhere()), X)
    assert converted(X).shape == (2, 3, 16, 16)


def test_an_example_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"example_input must be what the network takes.*\(2, 1, 32, 32\).*module '0'"):
        convert_downsampling(convolutions(), X[:, :1])
    with pytest.raises(InputError, match=r"example_input must be a tensor, a tuple of arguments or a dict"):
        convert_downsampling(convolutions(), (32, 32))


def test_an_example_on_another_device() -> None:
    with pytest.raises(InputError, match=r"one device, got the model on cpu and the example on meta; move one"):
        convert_downsampling(convolutions(), X.to("meta"))


@pytest.mark.parametrize("pooling", ["diffstride", "spectral", "strided"])
def test_strides_that_leave_nothing(pooling: str) -> None:
    with pytest.raises(InputError, match=r"a stride of 33 would leave a map of size 0 of the 32 bins that '0' gets"):
        convert_downsampling(convolutions(), X, strides=[33], pooling=pooling)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": [2, 2]}, r"one entry per layer \(1\), got 2; layers:\n  \(2, 2\) '0'"),
        ({"strides": [(2, 2, 2)]}, r"strides of '0' must have one entry per axis \(2\), got \(2, 2, 2\)"),
        ({"strides": [0.5]}, r"strides must be finite and >= 1"),
        ({"strides": [2.5], "pooling": "strided"}, r"whole numbers with pooling 'strided', got 2.5 for '0'"),
        ({"pooling": "average"}, r"pooling must be one of strided, spectral, diffstride, got 'average'"),
        ({"size": "same"}, r"size must be one of paper, nominal, folded, mixed, got 'same'"),
        ({"pools": "drop"}, r"pools must be one of unstrided, none, got 'drop'"),
        ({"leave": ["conv"]}, r"leave must name modules of the network, got 'conv'; see named_modules"),
        ({"also": ["9"]}, r"also must name modules of the network, got '9'"),
        ({"learn_first": True}, r"learn_first needs a residual block that keeps its resolution"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert_downsampling(convolutions(), X, **options)  # type: ignore[arg-type]


def test_branches_that_learned_strides_would_part(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("resnet18")
    with pytest.raises(InputError, match=r"'layer2.0.downsample.0' is to be left as it is, but meets .*layer2.0.conv1"):
        convert_downsampling(model, x, leave=["layer2.0.downsample"])
    with pytest.raises(InputError, match=r"'layer1.0.conv1' is in a branch that meets another one.*name the block"):
        convert_downsampling(model, x, also=["layer1.0.conv1"])


class Shortcut(nn.Module):
    """Every other bin of the input, as some networks for small images have it, or two steps in one branch."""

    def __init__(self, *, two_steps: bool) -> None:
        super().__init__()
        self.main = nn.Conv2d(3, 3, 3, stride=4 if two_steps else 2, padding=1)
        self.halves = nn.ModuleList([nn.AvgPool2d(2), nn.AvgPool2d(2)])
        self.two_steps = two_steps

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + (self.halves[1](self.halves[0](x)) if self.two_steps else x[:, :, ::2, ::2])


def test_branches_that_shrink_otherwise() -> None:
    with pytest.raises(InputError, match=r"with others than its own fails in the network itself.*leave="):
        convert_downsampling(Shortcut(two_steps=False), X)
    with pytest.raises(InputError, match=r"'main' and 'halves.1' lead to maps that meet, from maps of different sizes"):
        convert_downsampling(Shortcut(two_steps=True), X)


def test_a_pool_that_returns_places() -> None:
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x)[0]

    with pytest.raises(InputError, match=r"module 'pool' returns the places of its maxima"):
        convert_downsampling(Pool(), X)


def test_other_settings_of_a_rewritten_forward(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("spectrogram")
    converted, _ = convert_downsampling(model, x)
    block = converted.blocks[0]
    assert isinstance(block, nn.Module)
    with pytest.raises(InputError, match=r"'blocks.0' \(ConvBlock\): pool_type must be 'avg'.*got 'max'"):
        block(x.unsqueeze(1), pool_size=(2, 2), pool_type="max")


def test_freezing_what_cannot_be_frozen(named_network: Callable[[str], Network]) -> None:
    model, x = named_network("branches")
    with pytest.raises(InputError, match="must have layers such as DiffStride2d, got none"):
        freeze_downsampling(model, x)
    converted, _ = convert_downsampling(model, x)
    with pytest.raises(
        InputError, match=r"example_input must be what the network takes, but it fails in module 'stem'"
    ):
        freeze_downsampling(converted, x[:, :1])
    shared = nn.Conv1d(1, 1, 3, stride=2)
    twice, _ = convert_downsampling(nn.Sequential(shared, shared), torch.zeros(1, 1, 40))
    with pytest.raises(InputError, match=r"a layer must get maps of one size.*\[\(17,\), \(38,\)\]"):
        freeze_downsampling(twice, torch.zeros(1, 1, 40))


def test_freezing_a_layer_that_is_not_called() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = DiffStride1d((2.0,)), DiffStride1d((2.0,))

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(InputError, match=r"every layer must be called.*but idle is not.*freeze\(\) of their own"):
        freeze_downsampling(Idle(), torch.zeros(1, 1, 20))

"""Networks of timm, where it is installed: other ways to stride, pad, split and gate."""

import pytest
import torch

from audiostride import convert_downsampling
from audiostride.strides.diffstride import diffstride_layers

# Average pools in shortcuts; padding by size; layers over channels; grouped branches; split attention; kernels of
# several sizes; branches in a row; gates with pools of their own; blocks of several branches.
NAMES = {
    "resnet50d": 5,
    "tf_efficientnet_b0": 5,
    "convnext_atto": 4,
    "regnetx_002": 5,
    "resnest14d": 5,
    "mixnet_s": 5,
    "res2net50_14w_8s": 5,
    "ghostnet_050": 5,
    "mobileone_s0": 5,
    "vgg11": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_timm_keeps_its_sizes_and_learns(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5)
    x = torch.randn(3, 3, 75, 64)
    converted, table = convert_downsampling(model, x)
    learned = table[table["layer"].notna()]
    assert learned["size_before"].tolist() == learned["size_after"].tolist()
    assert len(diffstride_layers(converted)) == NAMES[name]
    assert set(model.state_dict()) <= set(converted.state_dict())
    converted(x).mul(torch.randn(3, 5)).sum().backward()
    assert [each for each, parameter in converted.named_parameters() if parameter.grad is None] == []

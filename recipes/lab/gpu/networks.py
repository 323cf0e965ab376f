"""The layer alone, and networks on images."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import ResNetEncoder, convert_downsampling, project_strides_
from audiostride.checks import Pooling
from bench_pooling import LAYER_HEADER, LAYER_TITLE, MAPS, bench_layer
from lab.gpu.part import Part, count_waits, peak_mib, ratio, seconds_each


def measure_layer(part: Part) -> None:
    """DiffStride alone against the FFT route and against strided convolution."""
    add = part.table(LAYER_TITLE, LAYER_HEADER)
    for name, batch, channels, sizes in MAPS[1:2] if part.smoke else MAPS:
        if part.left_s() < 4:
            part.note(f"{name}: not reached in the time")
            continue
        count = part.size(16 * batch, 1)  # with batches that suit a CPU a GPU would be idle
        add(bench_layer(f"{name}, batch {count}", count, channels, sizes, part.device))


def measure_images(part: Part) -> None:
    """ResNet-18 on small images with three poolings, and torchvision's, converted, on large ones."""
    poolings: tuple[Pooling, ...] = ("strided", "spectral", "diffstride")
    networks: dict[str, Callable[[], nn.Module]] = {
        pooling: partial(make_resnet, pooling, width=part.size(100, 5) / 100) for pooling in poolings
    }
    time_networks("ResNet-18", networks, torch.rand(part.size(256, 2), 3, 32, 32), part)
    import torchvision  # type: ignore[import-untyped]  # an extra that the table above does not need

    side = part.size(224, 64)
    images = torch.rand(part.size(128, 1), 3, side, side)

    def make(*, convert: bool, leave: Sequence[str] = ()) -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = torchvision.models.resnet18(num_classes=10)
        return convert_downsampling(network, images[:2], size="nominal", leave=leave)[0] if convert else network

    networks = {
        "as it is": partial(make, convert=False),
        "converted": partial(make, convert=True),
        "converted but for its stem": partial(make, convert=True, leave=["conv1", "maxpool"]),
    }
    time_networks("torchvision's resnet18", networks, images, part)


def make_resnet(pooling: Pooling, *, width: float) -> nn.Module:
    """A ResNet-18 for small images and ten classes."""
    torch.manual_seed(0)
    strides = [(2.0, 2.0)] * 3
    encoder = ResNetEncoder(in_channels=3, pooling=pooling, strides=strides, width=width, size="nominal", stem="small")
    return nn.Sequential(encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(encoder.out_channels, 10))


def time_networks(title: str, make: dict[str, Callable[[], nn.Module]], images: Tensor, part: Part) -> None:
    """A row for the training step of each network, relative to the first."""
    add = part.table(
        f"{title} on images of {images.shape[2]} x {images.shape[3]}, batch {len(images)}, bf16-mixed, SGD.",
        ["network", "ms per step", "time", "images/s", "peak memory (MiB)", "memory", "host waits per step"],
    )
    images = images.to(part.device).contiguous(memory_format=torch.channels_last)
    steps: dict[str, Callable[[], None]] = {}
    memory: dict[str, float | None] = {}
    for name, build in make.items():
        if part.left_s() < 8:
            part.note(f"{name}: not reached in the time")
            continue

        def begin(name: str = name, build: Callable[[], nn.Module] = build) -> None:
            steps[name] = make_step(build().to(part.device).to(memory_format=torch.channels_last), images)
            for _ in range(part.size(3, 1)):
                steps[name]()

        memory[name] = peak_mib(part, begin)
    found = seconds_each(steps, part)
    first = next(iter(found), "")
    for name, own_s in found.items():
        mib = memory[name]
        add([name, f"{1e3 * own_s:.2f}", ratio(own_s, found[first]), f"{len(images) / own_s:.0f}",
             f"{mib:.0f}" if mib else "-", ratio(mib, memory[first]), count_waits(steps[name], part)])  # fmt: skip


def make_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """One optimizer step. Strides get their gradients and stay where they are."""
    classes = torch.arange(len(images), device=images.device) % 10
    moving = [parameter for key, parameter in network.named_parameters() if not key.endswith("strides")]
    optimizer = torch.optim.SGD(moving, lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(network(images), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        network.zero_grad()
        project_strides_(network)

    return step

"""Converting torchvision's networks: how long it takes, and the speed of what comes out. Prints a Markdown table.

Data: none (noise).
Command: python recipes/bench_conversion.py [--models resnet18 …] [--size 224] [--batch 4] [--device cuda] [--threads 2]
Expected: see recipes/RESULTS.md, Converted networks. Needs audiostride[vision]; about 3 minutes on 2 cores; let nothing
    run beside it.

Networks of a row take turns, so that a change of the machine's speed falls on all of them. "Plain order" is the same
network with every pooling layer behind its convolution, also where the converter puts it in front.
"""

import argparse
import copy
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiostride import InputError, convert_downsampling, freeze_downsampling
from audiostride.training.hardware import describe_environment

MODELS = ("resnet18", "resnet50", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "convnext_tiny", "googlenet")


def make_network(name: str) -> nn.Module:
    """A network of torchvision with random weights."""
    try:
        import torchvision
    except ImportError as error:
        raise InputError("bench_conversion: torchvision is missing; pip install 'audiostride[vision]'") from error
    settings = {"init_weights": False} if name == "googlenet" else {}
    network: nn.Module = getattr(torchvision.models, name)(weights=None, **settings)
    return network.eval()


def plain_order(frozen: nn.Module) -> nn.Module:
    """A copy with every pooling layer behind its convolution."""
    plain = copy.deepcopy(frozen)
    for module in plain.modules():
        if hasattr(module, "pool_first"):
            module.pool_first = False
    return plain


def multiply_adds(network: nn.Module, x: Tensor) -> float:
    """Multiply-adds of one example, in millions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x[:1])
    return counter.get_total_flops() / 2e6


def median_times(networks: list[nn.Module], x: Tensor, *, repeats: int) -> list[float]:
    """Median seconds of a forward pass of each network, taking turns."""
    times: list[list[float]] = [[] for _ in networks]
    for turn in range(repeats + 1):
        for network, taken in zip(networks, times, strict=True):
            begun = time.perf_counter()
            with torch.inference_mode():
                network(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def measure(name: str, x: Tensor, *, repeats: int) -> list[str]:
    """The row of a network."""
    network = make_network(name).to(x.device)
    begun = time.perf_counter()
    converted, table = convert_downsampling(network, x)
    seconds = time.perf_counter() - begun
    frozen = freeze_downsampling(converted, x)
    plain = plain_order(frozen)
    with torch.no_grad():
        difference = float((plain(x) - frozen(x)).abs().max() / frozen(x).abs().max())
    before, learned, fixed, in_plain_order = median_times(
        [network, converted.eval(), frozen, plain], x, repeats=repeats
    )
    cost = multiply_adds(frozen, x) / multiply_adds(network, x)
    cells = [f"{seconds:.2f}", f"{int(table['layer'].max())}", f"{1e3 * before:.0f}", f"{cost:.2f}"]
    cells += [f"{learned / before:.2f}", f"{fixed / before:.2f}", f"{fixed / in_plain_order:.2f}", f"{difference:.0e}"]
    return [name, *cells]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--size", type=int, default=224, help="height and width of images (default: 224)")
    parser.add_argument("--batch", type=int, default=4, help="images at a time (default: 4)")
    parser.add_argument("--repeats", type=int, default=7, help="timed passes of each network (default: 7)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=arguments.device)
    machine = describe_environment(x.device)["device"] + ("" if x.is_cuda else f", {arguments.threads} threads")
    print(f"{machine}; torch {torch.__version__}; {arguments.batch} images of {arguments.size} x {arguments.size}\n")
    header = ["network", "converted in (s)", "layers", "as it was (ms)", "multiply-adds", "converted", "frozen"]
    header += ["frozen to plain order", "largest difference"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header), flush=True)
    try:
        convert_downsampling(nn.Sequential(nn.MaxPool2d(2)), x)  # what the first call of a process loads
        for name in arguments.models:
            print("| " + " | ".join(measure(name, x, repeats=arguments.repeats)) + " |", flush=True)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starting strides for networks that are to recover from poor ones, and what the paper reports of its own."""

from collections.abc import Iterable, Mapping

from audiostride.errors import InputError

Start = tuple[float, ...]
"""A stride for each strided layer, the same on both axes."""

# The networks, each with the strides that it usually has: costs are relative to strided convolution with these. Layers
# with strides are in a ResNet-18 its three shortcut blocks, or with four strides, as the paper has it for ImageNet, the
# first identity block too; in DenseNet-121 its three transitions; in the paper's audio network ("audio") blocks 1, 2, 4
# and 6; in EfficientNet-B0 its seven stages, or of a network that learns audio the four that have strides.
USUAL: dict[str, tuple[Start, ...]] = {
    "resnet18": ((2, 2, 2), (1, 2, 2, 2)),
    "preact_resnet18": ((2, 2, 2), (1, 2, 2, 2)),
    "audio": ((2, 2, 2, 2),),
    "densenet121": ((2, 2, 2),),
    "efficientnet_b0": ((1, 2, 2, 2, 1, 2, 1), (2, 2, 2, 2)),
}
AUDIO_ARCHS = ("resnet18", "preact_resnet18", "audio", "densenet121", "efficientnet_b0")
IMAGE_ARCHS = ("resnet18", "preact_resnet18", "densenet121", "efficientnet_b0")
AUDIO_BLOCKS = (1, 2, 4, 6)
N_AUDIO_BLOCKS = 6

# Riad et al. 2022 (arXiv 2202.01653), Table 3: starts of ResNet-18 on CIFAR, drawn from [1, 3].
CIFAR_STARTS: tuple[Start, ...] = ((2, 2, 2), (2, 2, 3), (1, 3, 1), (3, 1, 3), (3, 1, 2), (3, 2, 3))
# The same table: starts of ResNet-18 on ImageNet, where the first identity block learns its strides too.
IMAGENET_STARTS: tuple[Start, ...] = (
    (1, 2, 2, 2), (1, 1, 3, 1), (1, 3, 1, 3), (2, 2, 2, 3), (2, 3, 1, 2), (3, 3, 2, 3),
)  # fmt: skip
# The paper draws them from [1, 2] and names the first one. The other five are ours: what choices([1, 2], k=7) of
# random.Random(0) gives first.
EFFICIENTNET_STARTS: tuple[Start, ...] = (
    (1, 2, 2, 2, 1, 2, 1),
    (2, 2, 1, 1, 2, 1, 2),
    (1, 1, 2, 2, 2, 1, 2),
    (2, 1, 2, 2, 2, 2, 1),
    (2, 2, 2, 1, 1, 1, 2),
    (2, 2, 1, 2, 1, 2, 2),
)
STARTS = {
    "resnet18": CIFAR_STARTS,
    "preact_resnet18": CIFAR_STARTS,
    "densenet121": CIFAR_STARTS,
    "audio": IMAGENET_STARTS,
    "efficientnet_b0": EFFICIENTNET_STARTS,
}
# Table 3, ResNet-18: test accuracy in %, mean of three runs, of strided convolution, spectral pooling and DiffStride.
PAPER: dict[str, dict[Start, tuple[float, float, float]]] = {
    "CIFAR-10": {
        (2, 2, 2): (91.4, 92.4, 92.5),
        (2, 2, 3): (90.5, 92.2, 92.8),
        (1, 3, 1): (90.0, 91.1, 92.4),
        (3, 1, 3): (85.7, 90.9, 92.4),
        (3, 1, 2): (86.4, 90.9, 92.3),
        (3, 2, 3): (82.0, 89.2, 92.3),
    },
    "CIFAR-100": {
        (2, 2, 2): (66.8, 73.7, 73.4),
        (2, 2, 3): (63.4, 73.7, 73.5),
        (1, 3, 1): (64.9, 70.3, 73.4),
        (3, 1, 3): (55.3, 69.4, 73.7),
        (3, 1, 2): (56.2, 69.9, 73.4),
        (3, 2, 3): (48.2, 66.6, 73.6),
    },
}
# Its row "mean (sd)". The sd is none of the row means above: theirs is 3.6 and 7.1 for strided convolution as that of a
# sample, 3.3 and 6.5 over n. It is the sample sd of all 18 runs: each row mean taken three times gives 3.4, 1.1, 0.2
# and 6.7, 2.6, 0.1, and the spread over seeds, which the table has in its rows, makes the last one 0.3.
PAPER_MEANS: dict[str, dict[str, tuple[str, str, str]]] = {
    "resnet18": {
        "CIFAR-10": ("87.7 (3.4)", "91.1 (1.1)", "92.4 (0.2)"),
        "CIFAR-100": ("59.1 (6.7)", "70.6 (2.6)", "73.5 (0.3)"),
    },
    # Of its appendix only the means.
    "densenet121": {"CIFAR-10": ("91.9", "91.3", "91.6"), "CIFAR-100": ("68.1", "68.2", "68.6")},
    "efficientnet_b0": {"CIFAR-10": ("87.5", "90.4", "90.9"), "CIFAR-100": ("56.1", "65.9", "66.6")},
}
DATA_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def parse_starts(arch: str, given: Iterable[str]) -> list[Start]:
    """Starting strides as they stand on a command line, each once.

    Args:
        arch: One of `USUAL`.
        given: Each as ``"2,2,3"``, one number >= 1 per strided layer, and all with as many.

    Raises:
        InputError: Not numbers, too few or too many, or below 1.

    >>> parse_starts("resnet18", ["2,2,2", "(1, 2.5, 1)"])
    [(2, 2, 2), (1, 2.5, 1)]
    """
    counts = [len(start) for start in USUAL[arch]]
    example = name_start(USUAL[arch][0])
    starts: dict[Start, None] = {}
    for text in given:
        try:
            values = [float(part) for part in text.strip(" ()[]").split(",")]
        except ValueError:
            raise InputError(
                f"--starts must be numbers with commas between them, got {text!r}; write each start like {example}, in "
                "quotes"
            ) from None
        if len(values) not in counts:
            raise InputError(
                f"--starts must have {' or '.join(map(str, counts))} numbers each for {arch}, one per strided layer, "
                f"got {text!r} with {len(values)}; such as {example}"
            )
        wrong = [value for value in values if not 1 <= value < float("inf")]
        if wrong:
            raise InputError(
                f"--starts must be finite strides >= 1, got {wrong[0]:g} in {text!r}; 1 keeps the size of maps"
            )
        starts[tuple(int(value) if value.is_integer() else value for value in values)] = None
    if len({len(start) for start in starts}) > 1:
        raise InputError(
            f"--starts must all have as many numbers, got {' '.join(map(name_start, starts))}; a table has one network"
        )
    return list(starts)


def default_starts(arch: str, kind: str) -> list[Start]:
    """The starts of a network, which learns ``audio`` or ``images``.

    >>> default_starts("efficientnet_b0", "audio")[0]
    (1, 2, 2, 2)
    """
    return list(IMAGENET_STARTS if (arch, kind) == ("efficientnet_b0", "audio") else STARTS[arch])


def usual_start(arch: str, start: Start) -> Start:
    """The strides that a network usually has, for as many layers as a start has.

    >>> usual_start("resnet18", (3, 3, 2, 3))
    (1, 2, 2, 2)
    """
    return next(usual for usual in USUAL[arch] if len(usual) == len(start))


def name_start(start: Start) -> str:
    """A start as tables show it.

    >>> name_start((1, 2.5, 1))
    '(1,2.5,1)'
    """
    return f"({','.join(map(str, start))})"


def name_folder(start: Start) -> str:
    """A start as it stands in names of folders.

    >>> name_folder((1, 2.5, 1))
    '1-2.5-1'
    """
    return "-".join(map(str, start))


def paper_data(arch: str, data: str) -> dict[str, Mapping[Start, tuple[float, float, float]]]:
    """What the paper reports of a network on CIFAR, start by start: of the one data set learned, or of both.

    Args:
        arch: One of `USUAL`.
        data: cifar10, cifar100, or anything else.

    Returns:
        For each data set a row per start; no rows where the paper has means only; no data sets where it has nothing.
    """
    names = [DATA_NAMES[data]] if data in DATA_NAMES else list(PAPER)
    rows = PAPER if arch == "resnet18" else {name: {} for name in PAPER_MEANS.get(arch, {})}
    return {name: rows[name] for name in names if name in rows}

"""The encoders by name: their channels and strides, and what those that are given must be."""

from collections.abc import Sequence
from typing import get_args

from audiostride.checks import EncoderKind, check_axes, check_choice
from audiostride.errors import InputError
from audiostride.models.packages import PACKAGES, check_network_name, package_of

PAPER_CHANNELS = (64, 128, 256, 256, 512, 512)
PAPER_STRIDES = ((2.0, 2.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
# ResNet-18 (He et al. 2016): four stages, of which the last three begin with a stride.
N_STAGES = 4
RESNET_CHANNELS = (64, 128, 256, 512)
RESNET_STRIDES = ((2.0, 2.0), (2.0, 2.0), (2.0, 2.0))
# BC-ResNet-1 (Kim et al. 2021, Table 1): its four stages, and the strides of its stem and of stages 2 and 3.
BCRESNET_CHANNELS = (8, 12, 16, 20)
BCRESNET_STRIDES = ((1.0, 2.0), (1.0, 2.0), (1.0, 2.0))

ENCODER_CHANNELS: dict[str, tuple[int, ...]] = {
    "separable": PAPER_CHANNELS,
    "resnet18": RESNET_CHANNELS,
    "preact_resnet18": RESNET_CHANNELS,
    "bcresnet": BCRESNET_CHANNELS,
}
ENCODER_STRIDES: dict[str, tuple[tuple[float, float], ...]] = {
    "separable": PAPER_STRIDES,
    "resnet18": RESNET_STRIDES,
    "preact_resnet18": RESNET_STRIDES,
    "bcresnet": BCRESNET_STRIDES,
}


def fill_encoder(
    who: str, encoder: str, strides: Sequence[Sequence[float]] | None, channels: Sequence[int] | None
) -> tuple[Sequence[Sequence[float]] | None, Sequence[int] | None]:
    """Strides and channels as given, those of the encoder itself in place of None; another package's keep None.

    Raises:
        InputError: There is no such encoder, or its package is missing.

    >>> fill_encoder("train", "resnet18", None, (8, 8, 16, 16))
    (((2.0, 2.0), (2.0, 2.0), (2.0, 2.0)), (8, 8, 16, 16))
    """
    if package_of(encoder) is not None:
        check_network_name(who, encoder)
    else:
        check_choice(who, "encoder", encoder, (*get_args(EncoderKind), *(f"{package}:NAME" for package in PACKAGES)))
    filled = ENCODER_STRIDES.get(encoder) if strides is None else strides
    return filled, ENCODER_CHANNELS.get(encoder) if channels is None else channels


def check_blocks(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless every block of separable convolutions has channels and a pair of strides."""
    if not channels or any(count < 1 for count in channels):
        raise InputError(f"{who}: channels must be one positive number per block, got {tuple(channels)}")
    if len(strides) != len(channels):
        raise InputError(f"{who}: strides must have one pair per block ({len(channels)}), got {len(strides)}")
    for pair in strides:
        check_axes(who, pair, 2, "each entry of strides")


def check_stages(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless there are channels for four stages, and strides for all of them or for all but the first."""
    places = f"{N_STAGES - 1} pairs (stages 2 to {N_STAGES}) or {N_STAGES} (all stages)"
    of_paper = f"ResNet-18 has channels {RESNET_CHANNELS} and strides (2, 2) in stages 2 to {N_STAGES}"
    _check_staged(who, strides, channels, n_strides=(N_STAGES - 1, N_STAGES), places=places, of_paper=of_paper)


def check_broadcasted(who: str, strides: Sequence[Sequence[float]], channels: Sequence[int]) -> None:
    """Raise unless there are channels for four stages, and strides for the three places where a BC-ResNet pools."""
    n_places = len(BCRESNET_STRIDES)
    places = f"{n_places} pairs (stem, stages 2 and 3)"
    of_paper = f"BC-ResNet-1 has channels {BCRESNET_CHANNELS} and strides (1, 2) in each"
    _check_staged(who, strides, channels, n_strides=(n_places,), places=places, of_paper=of_paper)


def _check_staged(
    who: str,
    strides: Sequence[Sequence[float]],
    channels: Sequence[int],
    *,
    n_strides: Sequence[int],
    places: str,
    of_paper: str,
) -> None:
    if len(channels) != N_STAGES or any(count < 1 for count in channels):
        raise InputError(
            f"{who}: channels must be {N_STAGES} positive numbers, one per stage, got {tuple(channels)}; {of_paper}"
        )
    if len(strides) not in n_strides:
        raise InputError(f"{who}: strides must have {places}, got {len(strides)}: {tuple(strides)}; {of_paper}")
    for pair in strides:
        check_axes(who, pair, 2, "each entry of strides")


CHECKS = {
    "separable": check_blocks,
    "resnet18": check_stages,
    "preact_resnet18": check_stages,
    "bcresnet": check_broadcasted,
}

"""Image classifiers of the paper's section 3.2, whose layers pool by fixed or learned strides; saving and loading."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiostride.checks import Pooling, Size, Stem, check_choice, check_count, check_positive, check_stride
from audiostride.errors import InputError
from audiostride.models.pooled import PooledEncoder
from audiostride.models.resnet import ResNetEncoder
from audiostride.models.saving import read_model_file
from audiostride.strides.convert import freeze_downsampling
from audiostride.strides.diffstride import DiffStride2d, project_strides_
from audiostride.strides.spectral_pool import SpectralPool2d
from audiostride.writing import write_bytes
from images.torchvision_networks import make_densenet, make_efficientnet

Arch = Literal["resnet18", "preact_resnet18", "densenet121", "efficientnet_b0"]
# How many layers pool in each, or may: of ResNets the first identity block too, or not.
N_STRIDES: dict[str, tuple[int, ...]] = {
    "resnet18": (3, 4), "preact_resnet18": (3, 4), "densenet121": (3,), "efficientnet_b0": (7,),
}  # fmt: skip
_POOLS = (DiffStride2d, SpectralPool2d)
WHO = "build_image_network"
FORMAT_VERSION = 1
KEY = "audiostride_images"
LOADER = "load_image_classifier"
# Of the colours in ImageNet, which most image models use.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageClassifier(nn.Module):
    """Normalised colours, a network, the mean of each of its maps, one linear layer.

    Args:
        backbone: The network, from ``(B, 3, H, W)`` to ``(B, n_features, H', W')``.
        n_features: Channels of its maps.
        n_classes: Classes.
        image_size: Height and width of the images that strides are limited for.
        mean, std: Of the colours, in [0, 1].
        dropout: Probability that a feature is left out in training.
        settings: What `build_image_network` made it with.

    Shape:
        images: ``(B, 3, H, W)``, red, green and blue in [0, 1]. Result: logits ``(B, n_classes)``.

    Raises:
        InputError: Images of another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int,
        *,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dropout: float = 0.0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_features, n_classes)
        self.image_size, self.settings = image_size, settings or {}

    def project_strides_(self) -> None:
        """Limit the learned strides to what maps of the image's size allow; call it after each optimizer step."""
        if isinstance(self.backbone, PooledEncoder):
            self.backbone.project_strides_(self.image_size, self.image_size)
        else:
            project_strides_(self)

    def freeze(self) -> "ImageClassifier":
        """A copy for evaluation whose strides no longer change, for images of its size: matrices are fixed."""
        frozen = copy.deepcopy(self).eval()
        if isinstance(frozen.backbone, PooledEncoder):
            frozen.backbone.freeze_(self.image_size, self.image_size)
        elif any(isinstance(module, _POOLS) for module in frozen.modules()):
            example = torch.zeros(1, 3, self.image_size, self.image_size, device=self.mean.device)
            frozen.backbone = freeze_downsampling(frozen.backbone, example)
        return frozen

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"ImageClassifier: images must have shape (B, 3, H, W), got {tuple(images.shape)}")
        maps = self.backbone((images - self.mean) / self.std)
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(-2, -1))))
        return logits


def build_image_network(
    arch: Arch,
    n_classes: int,
    *,
    pooling: Pooling = "diffstride",
    strides: Sequence[tuple[float, float]],
    size: Size = "nominal",
    width: float = 1.0,
    image_size: int = 32,
    stem: Stem = "small",
    shared_strides: bool = False,
    ramp_bins: float = 4.0,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> ImageClassifier:
    """An image classifier with random weights.

    Args:
        arch: ``"resnet18"`` (He et al. 2016a), ``"preact_resnet18"`` (He et al. 2016b), ``"densenet121"`` (Huang et
            al. 2017) or ``"efficientnet_b0"`` (Tan and Le 2019), the last two made by torchvision.
        n_classes: Classes.
        pooling: How maps shrink in the layers that have strides below; others, such as a large stem, stay as they are.
        strides: Stride over height and width of each of these: of ResNets three (stages 2 to 4) or four (stage 1 too),
            of DenseNet three (transitions), of EfficientNet seven (the first block of each stage).
        size, shared_strides, ramp_bins: See `DiffStride2d`; used by DiffStride only.
        width: Factor on the channels.
        image_size: Height and width of the images.
        stem: ``"small"`` keeps the size of the images, ``"large"`` halves it twice. EfficientNet's halves it always.
        mean, std: Of the colours, in [0, 1].

    Raises:
        InputError: Settings out of range, strides that are too many or too few; torchvision is needed and not there.

    >>> model = build_image_network("resnet18", 10, strides=[(2, 2)] * 3, width=0.1)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    check_choice(WHO, "arch", arch, Arch)
    check_choice(WHO, "pooling", pooling, Pooling)
    check_choice(WHO, "size", size, Size)
    check_choice(WHO, "stem", stem, Stem)
    check_count(WHO, n_classes=n_classes, image_size=image_size)
    check_positive(WHO, width=width)
    pairs = check_start_strides(WHO, arch, strides, pooling=pooling)
    settings = {
        "arch": arch, "n_classes": n_classes, "pooling": pooling, "strides": [list(pair) for pair in pairs],
        "size": size, "width": width, "image_size": image_size, "stem": stem, "shared_strides": shared_strides,
        "ramp_bins": ramp_bins, "mean": list(mean), "std": list(std),
    }  # fmt: skip
    dropout = 0.0
    if arch in ("resnet18", "preact_resnet18"):
        backbone: nn.Module = ResNetEncoder(
            in_channels=3,
            pooling=pooling,
            strides=pairs,
            width=width,
            size=size,
            ramp_bins=ramp_bins,
            shared_strides=shared_strides,
            pre_activation=arch == "preact_resnet18",
            stem=stem,
        )
        n_features = int(backbone.out_channels)  # type: ignore[arg-type]
    else:
        how: dict[str, Any] = {
            "pooling": pooling, "image_size": image_size, "width": width, "size": size,
            "shared_strides": shared_strides, "ramp_bins": ramp_bins,
        }  # fmt: skip
        if arch == "densenet121":
            backbone, n_features = make_densenet(pairs, stem=stem, **how)
        else:
            backbone, n_features = make_efficientnet(pairs, **how)
            dropout = 0.2  # as in the network's paper
    return ImageClassifier(
        backbone, n_features, n_classes, image_size=image_size, mean=mean, std=std, dropout=dropout, settings=settings
    )


def check_start_strides(
    who: str, arch: Arch, strides: Sequence[tuple[float, float]], *, pooling: Pooling
) -> list[tuple[float, float]]:
    """Return the strides as floats; raise unless a network has as many layers that pool, and can start from them."""
    pairs = [(check_stride(who, height), check_stride(who, across)) for height, across in strides]
    if len(pairs) not in N_STRIDES[arch]:
        counts = " or ".join(map(str, N_STRIDES[arch]))
        raise InputError(
            f"{who}: strides must have {counts} entries for {arch}, one for each layer that pools, got {len(pairs)}: "
            f"{pairs}"
        )
    if pooling == "strided" and not all(stride.is_integer() for pair in pairs for stride in pair):
        raise InputError(
            f"{who}: strides must be whole numbers for pooling strided, got {pairs}; "
            "fractional strides need pooling spectral or diffstride"
        )
    return pairs


def count_multiply_adds(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of a batch through a model in evaluation, as torch counts them: products and convolutions.

    >>> count_multiply_adds(nn.Linear(10, 3), torch.zeros(1, 10))
    30
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(example)
    finally:
        model.train(training)
    return int(counter.get_total_flops()) // 2


def save_image_classifier(
    model: ImageClassifier, path: str | Path, *, class_names: Sequence[str], config: dict[str, Any] | None = None
) -> None:
    """Write weights, the network's settings, class names and settings of the training to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    header = {
        "format": FORMAT_VERSION, "network": model.settings, "class_names": list(class_names), "config": config or {},
    }  # fmt: skip
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(header)}))


def load_image_classifier(path: str | Path, *, device: str | torch.device = "cpu") -> tuple[ImageClassifier, list[str]]:
    """The trained image classifier of a run folder or of a ``model.safetensors`` file, and its class names.

    Nothing is unpickled: the file holds tensors and JSON.

    Args:
        path: A run folder or a model file.
        device: Where the model goes.

    Returns:
        The model in evaluation mode; the class names.

    Raises:
        InputError: No such file, not an image model, cut off or damaged, or written by a newer version.
    """
    file, header, tensors = _read(path)
    try:
        model, class_names = build_image_network(**header["network"]), list(header["class_names"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{LOADER}: the metadata of {file} must be that of an image model: {error!r}") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{LOADER}: the weights in {file} must fit its network: {error}") from error
    return model.to(device).eval(), class_names


def read_class_names(path: str | Path) -> list[str]:
    """The class names of a model, as `load_image_classifier` gives them, without the model."""
    _, header, _ = _read(path, weights=False)
    return list(header["class_names"])


def _read(path: str | Path, *, weights: bool = True) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    return read_model_file(LOADER, path, key=KEY, kind="of image training", newest=FORMAT_VERSION, weights=weights)

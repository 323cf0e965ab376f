"""Names of networks that other packages make, as ``timm:NAME`` and ``torchvision:NAME``."""

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from audiostride.errors import InputError

# With the extra of this package that brings each.
PACKAGES = {"timm": "timm", "torchvision": "vision"}


def package_of(encoder: str) -> str | None:
    """The package that makes a network; None for the networks of this one.

    >>> package_of("timm:resnet18"), package_of("resnet18")
    ('timm', None)
    """
    package, colon, _ = encoder.partition(":")
    return package if colon and package in PACKAGES else None


def import_package(who: str, package: str) -> ModuleType:
    """One of `PACKAGES`, which are extras of this one.

    Raises:
        InputError: It is not installed, or does not load.
    """
    try:
        return import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # the last two where it was built for another torch
        raise InputError(
            f"{who}: the package {package} must be there for --encoder {package}:NAME, but does not load ({error}); "
            f"it is an extra: pip install 'audiostride[{PACKAGES[package]}]'"
        ) from error


def check_network_name(who: str, encoder: str) -> None:
    """Raise unless its package knows a network of that name, which also keeps names that stand for downloads away.

    Raises:
        InputError: The package is missing, or has no such network.
    """
    package, _, name = encoder.partition(":")
    module = import_package(who, package)
    known = module.list_models() if package == "timm" else module.models.list_models(module=module.models)
    if name not in known:
        listing = "timm.list_models()" if package == "timm" else "torchvision.models.list_models()"
        near = get_close_matches(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"{listing} lists them"
        raise InputError(f"{who}: encoder must be a network that {package} knows, got {name!r}; {hint}")

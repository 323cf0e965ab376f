"""Python and the packages: versions, whether they import, whether they fit audiostride and each other."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from audiostride import __version__
from audiostride.commands.doctor.verdict import Finding, reason_of, try_import

# Package and the name that it is imported by. torch has a topic of its own.
PACKAGES = {
    "lightning-fabric": "lightning_fabric",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "scikit-learn": "sklearn",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
}
# Uploads that start foreign code when they are imported, and that bring a `lightning_fabric` of their own; they are
# looked up, never imported.
MALICIOUS = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
ADVISORY = "GHSA-w37p-236h-pfx3"
OPTIONAL = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
# Where audiostride is not installed but used from its source, so that nothing says what it needs.
KNOWN = {"torch": ">=2.11"}
MEND_TORCH = (
    'pip install --force-reinstall "torch>=2.11" (on a machine without a GPU with '
    "--index-url https://download.pytorch.org/whl/cpu)"
)


def look_at_python() -> Finding:
    """The interpreter and this package."""
    text = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}, audiostride {__version__}"
    facts = {"python": platform.python_version(), "platform": platform.platform(), "audiostride": __version__}
    return Finding("python", "ok", text, facts=facts)


def look_for_malicious_uploads() -> Iterator[Finding]:
    """A problem for each package whose installed version was uploaded by an attacker; nothing where there is none."""
    for package, versions in MALICIOUS.items():
        found = version_of(package)
        if found in versions:
            text = (
                f"{package} {found} was uploaded by an attacker (advisory {ADVISORY}): importing it runs foreign code"
            )
            cure = (
                f"import it no more: pip uninstall {package}, then install another version; treat all credentials that "
                "were on this machine as exposed, and replace them"
            )
            yield Finding(f"malicious {package}", "problem", text, cure, {"package": package, "version": found})


def look_at_packages() -> Finding:
    """Versions of the packages, and which of them do not import or do not fit."""
    versions, wrong, wanted = {}, [], []
    malicious = any(look_for_malicious_uploads())
    for package, module in PACKAGES.items():
        versions[package] = version_of(package) or "missing"
        if package == "lightning-fabric" and malicious:
            wrong.append(f"{package} {versions[package]} must not be imported, as it may be the attacker's")
            wanted.append(f'"{package}{needed(package)}"')
            continue
        imported = try_import(module)
        if isinstance(imported, Exception):
            missing = versions[package] == "missing"
            wrong.append(f"{package} {'is missing' if missing else f'does not import ({reason_of(imported)})'}")
        elif not fits(package, versions[package]):
            wrong.append(f"{package} must be {needed(package)}")
        elif package == "lightning-fabric" and imported.__version__ != versions[package]:
            # pytorch-lightning brings its own copy of these files, and what was installed last stands there.
            wrong.append(f"{package} has the files of {imported.__version__}, as pytorch-lightning brings them")
        else:
            continue
        wanted.append(f'"{package}{needed(package)}"')
    text = ", ".join(f"{package} {found}" for package, found in versions.items())
    if wrong:
        cure = f"pip install --force-reinstall {' '.join(wanted)}"
        return Finding("packages", "problem", f"{'; '.join(wrong)}; there are {text}", cure, versions)
    return Finding("packages", "ok", text, facts=versions)


def look_at_export() -> Finding:
    """The packages of the extra ``export``, which only ONNX needs."""
    versions = {package: version_of(package) for package in OPTIONAL}
    broken = [
        package
        for package, module in OPTIONAL.items()
        if versions[package] and isinstance(try_import(module), Exception)
    ]
    missing = [package for package, found in versions.items() if found is None]
    text = ", ".join(f"{package} {found or 'missing'}" for package, found in versions.items())
    if broken:
        cure = f"these do not import: pip install --force-reinstall {' '.join(broken)}"
        return Finding("export", "problem", text, cure, versions)
    if missing:
        return Finding("export", "warning", text, "to export ONNX: pip install 'audiostride[export]'", versions)
    return Finding("export", "ok", text, facts=versions)


def look_at_torch() -> Finding:
    """Whether torch imports, in a version that fits, and which CUDA it is built for."""
    found, torch = version_of("torch"), try_import("torch")
    if isinstance(torch, Exception):
        text = f"torch {found or 'missing'} does not import: {reason_of(torch)}"
        return Finding("torch", "problem", text, MEND_TORCH, {"torch": found})
    facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
    text = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}"
    if found is not None and not fits("torch", found):
        return Finding("torch", "problem", f"{text}; audiostride needs torch{needed('torch')}", MEND_TORCH, facts)
    return Finding("torch", "ok", text, facts=facts)


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def needed(package: str) -> str:
    """The versions that audiostride asks for, such as ``>=2.6,<3``; empty where it is not known."""
    packaging = try_import("packaging.requirements")
    if not isinstance(packaging, Exception):
        try:
            for line in requires("audiostride") or []:
                requirement = packaging.Requirement(line)
                # An extra may ask for more: the tests' oracles hold torch back.
                if requirement.name == package and requirement.marker is None:
                    return str(requirement.specifier)
        except PackageNotFoundError:
            pass
    return KNOWN.get(package, "")


def fits(package: str, found: str) -> bool:
    """Whether a version is one that audiostride asks for; where that cannot be told, it is."""
    packaging = try_import("packaging.specifiers")
    wanted = needed(package)
    if isinstance(packaging, Exception) or not wanted or found == "missing":
        return True
    return bool(packaging.SpecifierSet(wanted).contains(found, prereleases=True))

"""Documents agree with each other and with the package: links lead somewhere, versions are the same."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import audiostride

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = ["README.md", ".github/CONTRIBUTING.md", ".github/CHANGELOG.md"]
DOCUMENTS += [
    "recipes/README.md",
    "recipes/RESULTS.md",
    "recipes/NOTES.md",
    "data_manifests/README.md",
    "tests/README.md",
]


def anchors(text: str) -> set[str]:
    """What links may name behind a #: headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document: Path, text: str) -> list[str]:
    """Links to files that are not there, or to headings that no file has."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        place, _, anchor = link.partition("#")
        file = document.parent / place if place else document
        found = (
            text if file == document else file.read_text(encoding="utf-8") if file.suffix == ".md" and anchor else ""
        )
        if not file.exists() or (anchor and anchor not in anchors(found)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    text = document.read_text(encoding="utf-8")
    assert dead_links(document, text) == []
    assert dead_links(document, f"{text}\n[x](#no-such-heading) [x](nothing.md) [x](https://example.org)") == [
        "#no-such-heading", "nothing.md",
    ]  # fmt: skip


def test_links_between_documents_are_many_enough_to_be_seen() -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    assert sum(len(re.findall(r"\]\([^)\s]*#[^)]+\)", text)) for text in texts) > 8


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == audiostride.__version__
    changes = (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    released = [name for name in re.findall(r"^## (.*)$", changes, flags=re.MULTILINE) if name != "Unreleased"]
    assert released[0] == audiostride.__version__


def test_hosted_tests_run_the_oldest_python_and_torch() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert len(matrix["python"]) == len(matrix["torch"]) == 2
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={matrix['python'][0]}")
    (torch,) = (each for each in map(Requirement, PROJECT["dependencies"]) if each.name == "torch")
    assert f">={matrix['torch'][0]}" in {str(each) for each in torch.specifier}
    assert all(torch.specifier.contains(version) for version in matrix["torch"])

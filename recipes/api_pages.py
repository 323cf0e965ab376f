"""Pages of the public names: what each takes and gives, with shapes, units and errors, from the docstrings.

Data: none (the package itself); needs `pip install 'audiostride[docs]'`.
Command: python recipes/api_pages.py -o site
Expected: site/index.html and a page for each module, in some seconds; they open from the folder, without a server.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import audiostride
from audiostride.errors import InputError
from lab.program import end_program

# Those whose `__all__` is a promise. Each name has a page once, where users import it from.
MODULES = [
    "audiostride",
    "audiostride.functional",
    "audiostride.dataset.check",
    "audiostride.dataset.importers",
    "audiostride.models",
    "audiostride.models.export",
    "audiostride.training",
    "audiostride.reporting",
    "audiostride.strides.convert",
]


def main() -> int:
    """Write the pages; the return value is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("site"), help="folder of the pages")
    arguments = parser.parse_args()
    return end_program("api_pages", lambda: build_pages(arguments.out))


def build_pages(out: Path) -> None:
    """Write a page for each module, and an index."""
    try:
        import pdoc
        import pdoc.render
    except ImportError as error:
        raise InputError("api_pages: pdoc must be installed, got none; pip install 'audiostride[docs]'") from error
    for name in MODULES:
        module = import_module(name)
        for public in module.__all__:  # what is loaded when it is first used, pdoc would not find
            found = vars(module)[public] = getattr(module, public)
            ours = [each for each in getattr(found, "__mro__", ()) if each.__module__.startswith("audiostride")]
            for own in (vars(each).get(name) for each in ours for name in ("__init__", "forward")):
                if own is not None and own.__doc__ is None:
                    own.__doc__ = "See above."  # else that of PyTorch, which says nothing of ours
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        include_undocumented=False,
        footer_text=f"audiostride {audiostride.__version__}",
    )
    pdoc.pdoc(*MODULES, output_directory=out)
    print(f"{len(MODULES)} pages: {out / 'index.html'}")


if __name__ == "__main__":
    sys.exit(main())

"""Progress bars, quiet where nobody watches a terminal."""

import sys
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_S = 10.0


def progress_bar(*args: Any, **kwargs: Any) -> Any:
    """A `tqdm` bar; where the output is a log, a line every ten seconds instead of ten a second."""
    if not sys.stderr.isatty():
        kwargs = {"mininterval": LOG_INTERVAL_S, "maxinterval": LOG_INTERVAL_S, **kwargs}
    return tqdm(*args, **kwargs)

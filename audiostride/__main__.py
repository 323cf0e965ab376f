"""``python -m audiostride`` is the command ``audiostride``."""

import sys

from audiostride.cli import main

sys.exit(main())

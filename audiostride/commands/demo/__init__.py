"""``audiostride demo``: sounds with known modulations, learned and explained."""

from typing import Any

from jsonargparse import ArgumentParser


def build_parser() -> ArgumentParser:
    """The options of ``audiostride demo``."""
    parser = ArgumentParser(description=run.__doc__)
    parser.add_argument("--out", default="runs/demo", help="folder that is written")
    parser.add_argument("--seed", type=int, default=0, help="seed of sounds and networks")
    return parser


def run(arguments: Any) -> int:
    """Make sounds with known modulations, learn them, and show whether the cut-offs follow."""
    from audiostride.commands.demo.two_tasks import demo  # torch and matplotlib, which help need not wait for

    demo(arguments.out, seed=arguments.seed)
    return 0

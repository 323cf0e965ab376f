"""Which of several sources each training excerpt comes from, as a function of (seed, position)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audiostride.errors import InputError

# Kind of random draw; see balance.py.
SOURCE = 3

# Positions per block of the sequence. Within a block every source has its share to a whole number, so that no share is
# off by more than 1 / 2048 of the block.
BLOCK = 1024


def mixing_weights(
    n_clips: Sequence[int], policy: str, *, n_tasks: Sequence[int] | None = None, temperature: float = 2.0
) -> NDArray[np.float64]:
    """Shares of the excerpts that sources give, which sum to 1.

    Every excerpt is drawn for a task, and then serves all tasks that its source has labels for. So a source with two
    tasks gives twice the excerpts of one with as many clips and one task.

    Args:
        n_clips: Training clips of each source.
        policy: ``"uniform"`` draws for all tasks equally often, ``"proportional"`` in proportion to their clips,
            ``"temperature"`` something between: in proportion to ``clips^(1 / temperature)``.
        n_tasks: Tasks of each source; None is one each.
        temperature: 1 is proportional; the larger, the more uniform.

    >>> mixing_weights([100, 300], "proportional"), mixing_weights([100, 900], "temperature", temperature=2.0)
    (array([0.25, 0.75]), array([0.25, 0.75]))
    >>> mixing_weights([100, 300], "uniform", n_tasks=[1, 3])
    array([0.25, 0.75])
    """
    exponent = {"uniform": 0.0, "proportional": 1.0, "temperature": 1.0 / temperature}[policy]
    weights = np.asarray(n_clips, dtype=np.float64) ** exponent
    if n_tasks is not None:
        weights = weights * np.asarray(n_tasks)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


class SourceOrder:
    """The endless sequence of sources that training draws from, a pure function of (seed, position).

    It goes block by block: in each block every source comes as often as its share says, in a new random order. A block
    is as short as shares allow, such as one round of all sources where these are equal, and otherwise 1024 long.

    Args:
        shares: Share of each source, which sum to 1; a source comes at least once per block.
        seed: Seed of the order.

    >>> sources, draws = SourceOrder(np.array([0.5, 0.5]), seed=0).at(0, 6)
    >>> np.bincount(sources), np.sort(draws[sources == 0])
    (array([3, 3]), array([0, 1, 2]))
    """

    def __init__(self, shares: NDArray[np.float64], *, seed: int) -> None:
        if len(shares) == 0 or len(shares) > BLOCK or (shares <= 0).any():
            raise InputError(f"SourceOrder: shares must be > 0, 1 to {BLOCK} of them, got {shares.tolist()}")
        self.seed = seed
        lengths = range(len(shares), BLOCK)
        exact = (n for n in lengths if np.allclose(shares * n, np.round(shares * n), rtol=0, atol=1e-6))
        self._counts = np.maximum(1, np.round(shares * next(exact, BLOCK))).astype(np.int64)
        self._length = int(self._counts.sum())
        self._block: tuple[int, NDArray[np.int64], NDArray[np.int64]] = (-1, self._counts, self._counts)

    def at(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of each of `count` positions from `first` on, and the number of earlier draws from that source.

        Shape:
            Results: ``(count,)`` int64 each.
        """
        sources = np.empty(count, dtype=np.int64)
        draws = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            block, place = divmod(first + done, self._length)
            order, ranks = self._order_of_block(block)
            part = slice(place, place + count - done)
            n_part = len(order[part])
            sources[done : done + n_part] = order[part]
            draws[done : done + n_part] = block * self._counts[order[part]] + ranks[part]
            done += n_part
        return sources, draws

    def _order_of_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._block[0] != block:
            members = np.repeat(np.arange(len(self._counts)), self._counts)
            order = np.random.default_rng([self.seed, SOURCE, block]).permutation(members)
            ranks = np.empty(len(order), dtype=np.int64)
            for source, n_draws in enumerate(self._counts.tolist()):
                ranks[order == source] = np.arange(n_draws)
            self._block = block, order, ranks  # a pure function of its key, kept for the positions that follow
        return self._block[1], self._block[2]

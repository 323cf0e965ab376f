"""Which clips training sees: endless orders that give every class, group or source its share; weights for the loss."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audiostride.checks import check_count
from audiostride.errors import InputError

# Kinds of random draws, so that the passes through the clips, the rounds through the units and the order of the sources
# come from independent streams of one seed. Every kind of the package has a number of its own: excerpts are 1,
# augmentation counts from 10.
ORDER, ROUND, SOURCE, PART = 0, 2, 3, 4

# Positions per block of the sequence. Within a block every source has its share to a whole number, so that no share is
# off by more than 1 / 2048 of the block.
BLOCK = 1024


class ClipOrder:
    """The endless sequence of clips that training draws from, a pure function of (seed, position).

    It goes round by round: in each round every unit (a class or a group) comes exactly once, in a new random order.
    The draws of a unit go through its clips pass by pass, each clip once per pass, again in a new random order. Small
    units therefore repeat their clips while large ones have not shown all of theirs. With one unit this is plain
    training: each clip once per pass.

        round       0      1      2      3        (units: a with clips 0 1 2, b with clip 3)
        position   0 1    2 3    4 5    6 7
        unit       a b    b a    a b    b a       each unit once per round
        clip       2 3    3 0    1 3    3 1       a: a pass of 2 0 1, then the next, from 1 on; b: 3 in every round

    A position costs O(1) amortised over a walk through the sequence: one permutation is kept per unit, 8 bytes a clip.

    Args:
        units: The class or group of each clip as a number, shape ``(clips,)``; all zeros to balance nothing.
        seed: Seed of all orders, >= 0.

    Raises:
        InputError: Units that are not whole numbers of shape ``(clips,)`` with at least 1 clip, a negative seed.

    >>> order = ClipOrder(np.array([0, 0, 0, 1]), seed=0)
    >>> clips = order.clips_at(0, 12).reshape(6, 2)  # six rounds of both units: the last clip is in each of them
    >>> (clips == 3).sum(axis=1), np.bincount(clips[:3].ravel())
    (array([1, 1, 1, 1, 1, 1]), array([1, 1, 1, 3]))
    """

    def __init__(self, units: NDArray[np.int64], *, seed: int) -> None:
        who = "ClipOrder"
        _check_whole_numbers(who, "units", units)
        if seed < 0:
            raise InputError(f"{who}: seed must be >= 0, got {seed}")
        self.seed = seed
        _, ranks, sizes = np.unique(units, return_inverse=True, return_counts=True)
        self._clips = np.argsort(ranks, kind="stable")  # unit after unit
        self._sizes: NDArray[np.int64] = sizes.astype(np.int64)
        self._firsts: NDArray[np.int64] = np.cumsum(self._sizes) - self._sizes
        # Pure functions of their keys, kept for the positions that follow.
        self._round: tuple[int, NDArray[np.int64]] = (-1, self._sizes)
        self._passes: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def clips_at(self, first: int, count: int) -> NDArray[np.int64]:
        """The clips at the `count` positions of the sequence from `first` on.

        Shape:
            Result: ``(count,)`` int64.

        Raises:
            InputError: A negative position or count.
        """
        who = "ClipOrder.clips_at"
        _check_position(who, first)
        if count < 0:
            raise InputError(f"{who}: count must be >= 0, got {count}")
        if count == 0:
            return np.empty(0, dtype=np.int64)
        rounds, places = np.divmod(first + np.arange(count, dtype=np.int64), len(self._sizes))
        if len(self._sizes) == 1:
            units = np.zeros(count, dtype=np.int64)
        else:
            orders = [self._units_of_round(round_) for round_ in range(int(rounds[0]), int(rounds[-1]) + 1)]
            units = np.stack(orders)[rounds - rounds[0], places]
        passes, draws = np.divmod(rounds, self._sizes[units])
        # Positions of a unit together, in their order, hence pass by pass: each permutation is made once.
        grouped = np.argsort(units, kind="stable")
        new_key = (np.diff(units[grouped]) != 0) | (np.diff(passes[grouped]) != 0)
        clips = np.empty(count, dtype=np.int64)
        for group in np.split(grouped, np.flatnonzero(new_key) + 1):
            clips[group] = self._clips_of_pass(int(units[group[0]]), int(passes[group[0]]))[draws[group]]
        return clips

    def _units_of_round(self, round_: int) -> NDArray[np.int64]:
        if self._round[0] != round_:
            n_units = len(self._sizes)
            # One unit has one order; without this every position would pay for a generator.
            one = n_units == 1
            units = np.zeros(1, np.int64) if one else self._generator(ROUND, round_).permutation(n_units)
            self._round = round_, units
        return self._round[1]

    def _clips_of_pass(self, unit: int, pass_: int) -> NDArray[np.int64]:
        first, size = int(self._firsts[unit]), int(self._sizes[unit])
        members = self._clips[first : first + size]
        if size == 1:  # one clip has one order; its pass changes with every draw
            return members
        if self._passes.get(unit, (-1,))[0] != pass_:
            # The unit comes last: NumPy pads keys with zeros, so that the passes of unit 0, which is everything where
            # nothing is balanced, are those of the key [seed, ORDER, pass] that older runs used.
            self._passes[unit] = pass_, self._generator(ORDER, pass_, unit).permutation(members)
        return self._passes[unit][1]

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])


def class_weights(class_indices: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Weights of the classes in the loss, inverse to how often they occur, with a mean of 1 over the clips.

    ``n / (K n_k)`` for a class with n_k of the n clips, K being the number of classes present (King and Zeng 2001,
    "Logistic Regression in Rare Events Data"; scikit-learn's "balanced"); 0 for a class that is absent.

    Args:
        class_indices: Classes of the training clips, shape ``(clips,)``, in ``[0, n_classes)``.
        n_classes: Number of classes, >= 1.

    Shape:
        Result: ``(n_classes,)`` float32.

    Raises:
        InputError: No clips, or a class index out of its range.

    >>> class_weights(np.array([0, 0, 0, 2]), 3)
    array([0.6666667, 0.       , 2.       ], dtype=float32)
    """
    who = "class_weights"
    check_count(who, n_classes=n_classes)
    _check_whole_numbers(who, "class_indices", class_indices)
    low, high = int(class_indices.min()), int(class_indices.max())
    if low < 0 or high >= n_classes:
        raise InputError(
            f"{who}: class_indices must lie in [0, n_classes) = [0, {n_classes}), got {low if low < 0 else high}; "
            "count the classes of all splits"
        )
    counts = np.bincount(class_indices, minlength=n_classes)
    present = counts > 0
    weights = np.zeros(n_classes, dtype=np.float32)
    weights[present] = len(class_indices) / (np.count_nonzero(present) * counts[present])
    return weights


def presence_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights of the absence and the presence of each class in the loss of clips with several labels.

    As `class_weights` of each class on its own: ``n / (2 n_1)`` of its presence in n_1 of the n clips, and
    ``n / (2 (n - n_1))`` of its absence, so that both count alike; 1 for a class that all clips have, or none.

    Args:
        labels: 0 and 1, ``(clips, classes)``.

    Shape:
        Result: ``(2, classes)`` float32, absence and then presence.

    >>> presence_weights(np.array([[1, 1], [0, 1], [0, 1], [0, 1]])).tolist()
    [[0.6666666865348816, 1.0], [2.0, 1.0]]
    """
    counts = np.stack([(labels == 0).sum(axis=0), (labels == 1).sum(axis=0)])
    weights = len(labels) / (2 * np.maximum(counts, 1))
    return np.where((counts == 0).any(axis=0), 1.0, weights).astype(np.float32)


def _check_whole_numbers(who: str, name: str, values: NDArray[np.int64]) -> None:
    if values.ndim != 1 or len(values) == 0 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"{who}: {name} must be whole numbers of shape (clips,) with at least 1 clip, got {values.dtype} of shape "
            f"{values.shape}; number the names with np.unique(names, return_inverse=True)"
        )


def _check_position(who: str, position: int) -> None:
    if position < 0:
        raise InputError(f"{who}: positions must be >= 0, got {position}; the sequence starts at 0 and has no end")


def source_shares(
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

    >>> source_shares([100, 300], "proportional"), source_shares([100, 900], "temperature", temperature=2.0)
    (array([0.25, 0.75]), array([0.25, 0.75]))
    >>> source_shares([100, 300], "uniform", n_tasks=[1, 3])
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
        kind: Of the random draws.

    >>> sources, draws = SourceOrder(np.array([0.5, 0.5]), seed=0).at(0, 6)
    >>> np.bincount(sources), np.sort(draws[sources == 0])
    (array([3, 3]), array([0, 1, 2]))
    """

    def __init__(self, shares: NDArray[np.float64], *, seed: int, kind: int = SOURCE) -> None:
        if len(shares) == 0 or len(shares) > BLOCK or (shares <= 0).any():
            raise InputError(f"SourceOrder: shares must be > 0, 1 to {BLOCK} of them, got {shares.tolist()}")
        self.seed, self._kind = seed, kind
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
            order = np.random.default_rng([self.seed, self._kind, block]).permutation(members)
            ranks = np.empty(len(order), dtype=np.int64)
            for source, n_draws in enumerate(self._counts.tolist()):
                ranks[order == source] = np.arange(n_draws)
            self._block = block, order, ranks  # a pure function of its key, kept for the positions that follow
        return self._block[1], self._block[2]


class SharedOrder:
    """An endless sequence of clips as `ClipOrder`, of which some, such as background, have a share that is given.

    Args:
        units: As for `ClipOrder`, among the clips of each kind.
        apart: Which clips have the share, shape ``(clips,)``.
        share: Their share, in (0, 1).
        seed: Seed of all orders.

    >>> order = SharedOrder(np.zeros(6, dtype=np.int64), np.array([0, 0, 0, 0, 0, 1]) > 0, 0.25, seed=0)
    >>> [int((order.clips_at(4 * first, 4) == 5).sum()) for first in range(5)]
    [1, 1, 1, 1, 1]
    """

    def __init__(self, units: NDArray[np.int64], apart: NDArray[np.bool_], share: float, *, seed: int) -> None:
        self._kinds = SourceOrder(np.array([1 - share, share]), seed=seed, kind=PART)
        members = (np.flatnonzero(~apart), np.flatnonzero(apart))
        self._orders = [(clips, ClipOrder(units[clips], seed=seed)) for clips in members]

    def clips_at(self, first: int, count: int) -> NDArray[np.int64]:
        """As `ClipOrder.clips_at`."""
        kinds, draws = self._kinds.at(first, count)
        clips = np.empty(count, dtype=np.int64)
        for kind, (members, order) in enumerate(self._orders):
            own = draws[kinds == kind]  # one after the other
            if len(own):
                clips[kinds == kind] = members[order.clips_at(int(own[0]), len(own))]
        return clips

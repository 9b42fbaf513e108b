"""Which spots teach, which choose the epoch, and which are only reported on.

Neighbouring spots are alike, and labels are averaged over neighbours, so spots drawn at random
would all but be known already. Parts are contiguous blocks with a ring of spots between them that
belongs to none. A label is averaged over spots of its own part or of the ring around it, and the
labels that teach only over spots that teach: then no count that enters a label on one side enters
one on the other, whatever the reach of the averaging.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError

Rows = NDArray[np.int64]
BLOCK = 20  # spots of a block, about
FEWEST = 8  # spots of any part


@dataclass(frozen=True)
class Held:
    """Rows of a section: out are held out, ring lies around them, rest is all else."""

    out: Rows
    ring: Rows
    rest: Rows


def blocks(array: Rows, size: float = BLOCK) -> tuple[Rows, ...]:
    """Contiguous blocks of equal size, by halving along the longer side again and again.

    array : (N, 2) array coordinates.
    """
    every = np.arange(len(array))
    times = max(0, round(np.log2(max(len(array), 1) / size)))
    found = [every]
    for _ in range(times):
        found = [half for block in found for half in _halves(array, block)]
    return tuple(found)


def hold_out(array: Rows, rows: Rows, out: Rows, reach: int) -> Held:
    """``out`` and the ring of ``rows`` around it, at most ``reach`` spots away on the array."""
    rest = np.setdiff1d(rows, out)
    near = _near(array, rest, out, reach)
    return Held(out, rest[near], rest[~near])


def draw_blocks(array: Rows, rows: Rows, share: float, seed: int) -> Rows:
    """About a share of the rows, in whole blocks drawn at random.

    Raises SpotsError when there are too few rows for a held-out part and another.
    """
    wanted = share * len(rows)
    if min(wanted, len(rows) - wanted) < FEWEST:
        raise SpotsError(
            f"{len(rows)} labelled spots are too few to hold some of them out; "
            f"each part needs {FEWEST}."
        )
    found = blocks(array[rows], min(BLOCK, max(FEWEST, int(wanted))))
    order = np.random.default_rng(seed).permutation(len(found))
    taken: list[Rows] = []
    count = 0
    for i in order:
        if count and abs(count + len(found[i]) - wanted) > abs(count - wanted):
            break
        taken.append(found[i])
        count += len(found[i])
    return np.sort(rows[np.concatenate(taken)])


def _halves(array: Rows, block: Rows) -> tuple[Rows, Rows]:
    at = array[block]
    axis = int(np.argmax(np.ptp(at, axis=0)))
    order = np.lexsort((at[:, 1 - axis], at[:, axis]))
    middle = len(block) // 2
    return block[order[:middle]], block[order[middle:]]


def _near(array: Rows, rows: Rows, out: Rows, reach: int) -> NDArray[np.bool_]:
    """Which rows lie within reach of a spot that is out; along x twice as far where the spots of
    a hexagonal array are two apart."""
    far = np.array([reach * (2 if _hexagonal(array) else 1), reach])
    if not len(out):
        return np.zeros(len(rows), dtype=bool)
    apart = np.abs(array[rows][:, None] - array[out][None])
    return (apart <= far).all(axis=2).any(axis=1)


def _hexagonal(array: Rows) -> bool:
    parity = array.sum(axis=1) % 2
    return len(array) > 2 and bool((parity == parity[0]).all())

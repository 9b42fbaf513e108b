"""Contiguous blocks of spots with a buffer ring between held-out and remaining spots.

Neighbouring spots are similar and labels are averaged over neighbours, so spots drawn at random
would leak. Subsets are contiguous blocks, separated by a ring of spots that belongs to none. A label
is averaged over spots of its own subset or of the ring, and training labels only over training
spots. No count that enters a label on one side enters a label on the other side, whatever the reach
of the averaging.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError

SpotRows = NDArray[np.int64]
SPOTS_PER_BLOCK = 20  # spots of a block, about
MIN_SPOTS = 8  # spots of any part


@dataclass(frozen=True)
class HeldOutSpots:
    """Rows of a section: out are held out, ring lies around them, rest is all else."""

    held_out: SpotRows
    buffer: SpotRows
    remaining: SpotRows


def split_into_blocks(array: SpotRows, size: float = SPOTS_PER_BLOCK) -> tuple[SpotRows, ...]:
    """Contiguous blocks of equal size, by halving along the longer side again and again.

    array : (N, 2) array coordinates.
    """
    every = np.arange(len(array))
    times = max(0, round(np.log2(max(len(array), 1) / size)))
    found = [every]
    for _ in range(times):
        found = [half for block in found for half in _halve_block(array, block)]
    return tuple(found)


def separate_with_buffer(
    array: SpotRows, rows: SpotRows, out: SpotRows, reach: int
) -> HeldOutSpots:
    """``out`` and the ring of ``rows`` around it, at most ``reach`` spots away on the array."""
    rest = np.setdiff1d(rows, out)
    near = _is_within_reach(array, rest, out, reach)
    return HeldOutSpots(out, rest[near], rest[~near])


def draw_blocks(array: SpotRows, rows: SpotRows, share: float, seed: int) -> SpotRows:
    """About a share of the rows, in whole blocks drawn at random.

    Raises SpotsError when there are too few rows for a held-out part and another.
    """
    wanted = share * len(rows)
    if min(wanted, len(rows) - wanted) < MIN_SPOTS:
        raise SpotsError(
            f"{len(rows)} labelled spots are too few to hold some of them out; "
            f"each part needs {MIN_SPOTS}."
        )
    found = split_into_blocks(array[rows], min(SPOTS_PER_BLOCK, max(MIN_SPOTS, int(wanted))))
    order = np.random.default_rng(seed).permutation(len(found))
    taken: list[SpotRows] = []
    count = 0
    for i in order:
        if count and abs(count + len(found[i]) - wanted) > abs(count - wanted):
            break
        taken.append(found[i])
        count += len(found[i])
    return np.sort(rows[np.concatenate(taken)])


def _halve_block(array: SpotRows, block: SpotRows) -> tuple[SpotRows, SpotRows]:
    at = array[block]
    axis = int(np.argmax(np.ptp(at, axis=0)))
    order = np.lexsort((at[:, 1 - axis], at[:, axis]))
    middle = len(block) // 2
    return block[order[:middle]], block[order[middle:]]


def _is_within_reach(
    array: SpotRows, rows: SpotRows, out: SpotRows, reach: int
) -> NDArray[np.bool_]:
    """Which rows lie within reach of a spot that is out; along x twice as far where the spots of
    a hexagonal array are two apart."""
    far = np.array([reach * (2 if _is_hexagonal(array) else 1), reach])
    if not len(out):
        return np.zeros(len(rows), dtype=bool)
    apart = np.abs(array[rows][:, None] - array[out][None])
    return (apart <= far).all(axis=2).any(axis=1)


def _is_hexagonal(array: SpotRows) -> bool:
    parity = array.sum(axis=1) % 2
    return len(array) > 2 and bool((parity == parity[0]).all())

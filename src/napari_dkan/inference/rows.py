"""Rows of numbers kept by an integer pair: features by position, fused tokens by grid cell."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

CAPACITY = 512 * 2**20  # bytes; what was not used for longest goes first

Keys = NDArray[np.int64]
Floats = NDArray[np.float32]


class Rows:
    """Float32 rows of one width, each under a key (two whole numbers). Thread-safe.

    Two generations bound the memory: when the young one holds half of the capacity it becomes
    the old one, and what was in the old one and not asked for since is dropped.
    """

    def __init__(self, width: int, capacity: int = CAPACITY) -> None:
        self.width = width
        self._most = max(1, capacity // (2 * 4 * max(width, 1)))  # rows of a generation
        self._young, self._old = _Generation(width), _Generation(width)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._young.numbers) + len(self._old.numbers)

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """(N,) which of the keys (N, 2) are here."""
        young, old = self._young.numbers, self._old.numbers
        with self._lock:
            return np.fromiter((k in young or k in old for k in packed(keys)), bool, len(keys))

    def take(self, keys: Keys) -> tuple[Floats, NDArray[np.bool_]]:
        """(N, width) rows of the keys (N, 2), zeros where unknown, and which are known."""
        with self._lock:
            wanted = packed(keys)
            self._keep_young(wanted)
            at = np.fromiter((self._young.numbers.get(k, -1) for k in wanted), np.int64, len(keys))
            known = at >= 0
            out = np.zeros((len(keys), self.width), np.float32)
            out[known] = self._young.rows[at[known]]
            return out, known

    def add(self, keys: Keys, rows: Floats) -> None:
        with self._lock:
            self._add(packed(keys), rows)

    def clear(self) -> None:
        with self._lock:
            self._young, self._old = _Generation(self.width), _Generation(self.width)

    def _keep_young(self, wanted: list[int]) -> None:
        """What is asked for again is not dropped with its generation."""
        old, young = self._old.numbers, self._young.numbers
        again = [k for k in wanted if k in old and k not in young] if old else []
        if again:
            self._young.add(again, self._old.rows[[old[k] for k in again]])

    def _add(self, keys: list[int], rows: Floats) -> None:
        self._young.add(keys, rows)
        if len(self._young.numbers) > self._most:
            self._old, self._young = self._young, _Generation(self.width)
            self._young.add(keys, rows)  # what was just made must be there to be taken


class _Generation:
    """Rows in one growing array."""

    def __init__(self, width: int) -> None:
        self.numbers: dict[int, int] = {}  # packed key -> row
        self.rows: Floats = np.empty((0, width), np.float32)

    def add(self, keys: list[int], rows: Floats) -> None:
        new = {k: i for i, k in enumerate(keys) if k not in self.numbers}
        start, end = len(self.numbers), len(self.numbers) + len(new)
        if end > len(self.rows):
            grown = np.empty((max(end, 2 * len(self.rows), 256), self.rows.shape[1]), np.float32)
            grown[:start] = self.rows[:start]
            self.rows = grown
        self.rows[start:end] = rows[list(new.values())]
        self.numbers.update(zip(new, range(start, end), strict=True))


def packed(keys: Keys) -> list[int]:
    """One number for each pair (N, 2) of 32-bit numbers."""
    packed: list[int] = ((keys[:, 0] << 32) ^ (keys[:, 1] & 0xFFFFFFFF)).tolist()
    return packed

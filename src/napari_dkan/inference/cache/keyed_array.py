"""A bounded, thread-safe array of rows that are addressed by integer pairs."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

DEFAULT_CAPACITY_BYTES = 512 * 2**20  # bytes; what was not used for longest goes first

KeyPairs = NDArray[np.int64]
FloatRows = NDArray[np.float32]


class KeyedArray:
    """Float32 rows of one width, each under a key (two whole numbers). Thread-safe.

    Two generations bound the memory: when the young one holds half of the capacity it becomes
    the old one, and what was in the old one and not asked for since is dropped.
    """

    def __init__(self, width: int, capacity: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.width = width
        self._max_generation_rows = max(
            1, capacity // (2 * 4 * max(width, 1))
        )  # rows of a generation
        self._young, self._old = _CacheGeneration(width), _CacheGeneration(width)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._young.row_by_key) + len(self._old.row_by_key)

    def contains(self, keys: KeyPairs) -> NDArray[np.bool_]:
        """(N,) which of the keys (N, 2) are here."""
        young, old = self._young.row_by_key, self._old.row_by_key
        with self._lock:
            return np.fromiter((k in young or k in old for k in pack_keys(keys)), bool, len(keys))

    def get(self, keys: KeyPairs) -> tuple[FloatRows, NDArray[np.bool_]]:
        """(N, width) rows of the keys (N, 2), zeros where unknown, and which are known."""
        with self._lock:
            wanted = pack_keys(keys)
            self._promote(wanted)
            at = np.fromiter(
                (self._young.row_by_key.get(k, -1) for k in wanted), np.int64, len(keys)
            )
            known = at >= 0
            out = np.zeros((len(keys), self.width), np.float32)
            out[known] = self._young.rows[at[known]]
            return out, known

    def add(self, keys: KeyPairs, rows: FloatRows) -> None:
        with self._lock:
            self._add(pack_keys(keys), rows)

    def clear(self) -> None:
        with self._lock:
            self._young, self._old = _CacheGeneration(self.width), _CacheGeneration(self.width)

    def _promote(self, packed_keys: list[int]) -> None:
        """What is asked for again is not dropped with its generation."""
        old, young = self._old.row_by_key, self._young.row_by_key
        again = [k for k in packed_keys if k in old and k not in young] if old else []
        if again:
            self._young.add(again, self._old.rows[[old[k] for k in again]])

    def _add(self, packed_keys: list[int], rows: FloatRows) -> None:
        self._young.add(packed_keys, rows)
        if len(self._young.row_by_key) > self._max_generation_rows:
            self._old, self._young = self._young, _CacheGeneration(self.width)
            self._young.add(packed_keys, rows)  # what was just made must be there to be taken


class _CacheGeneration:
    """Rows in one growing array."""

    def __init__(self, width: int) -> None:
        self.row_by_key: dict[int, int] = {}  # packed key -> row
        self.rows: FloatRows = np.empty((0, width), np.float32)

    def add(self, packed_keys: list[int], rows: FloatRows) -> None:
        new = {k: i for i, k in enumerate(packed_keys) if k not in self.row_by_key}
        start, end = len(self.row_by_key), len(self.row_by_key) + len(new)
        if end > len(self.rows):
            grown = np.empty((max(end, 2 * len(self.rows), 256), self.rows.shape[1]), np.float32)
            grown[:start] = self.rows[:start]
            self.rows = grown
        self.rows[start:end] = rows[list(new.values())]
        self.row_by_key.update(zip(new, range(start, end), strict=True))


def pack_keys(keys: KeyPairs) -> list[int]:
    """One number for each pair (N, 2) of 32-bit numbers."""
    packed: list[int] = ((keys[:, 0] << 32) ^ (keys[:, 1] & 0xFFFFFFFF)).tolist()
    return packed

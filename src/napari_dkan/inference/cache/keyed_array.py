"""Arrays of rows that are addressed by pairs of integers, in memory and on disk."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .cache_entry import CacheEntry

DEFAULT_CAPACITY_BYTES = 512 * 2**20
FLUSH_INTERVAL_S = 5.0  # time whose work is lost at most when the program is killed

KeyPairs = NDArray[np.int64]
FloatRows = NDArray[np.float32]


class KeyedArray:
    """Float32 rows of one width, each under a key of two integers. Thread-safe.

    Two generations bound the memory and approximate an LRU cache: when the young generation holds
    half of the capacity it becomes the old one, and the previous old one is dropped except for
    rows that were read since.

    Parameters
    ----------
    width : int
        Numbers in a row.
    capacity : int
        Bytes.
    """

    def __init__(self, width: int, capacity: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.width = width
        self._max_generation_rows = max(1, capacity // (2 * 4 * max(width, 1)))
        self._young, self._old = _CacheGeneration(width), _CacheGeneration(width)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._young.row_by_key) + len(self._old.row_by_key)

    def contains(self, keys: KeyPairs) -> NDArray[np.bool_]:
        """(N,) whether the array has a row for each of the keys (N, 2)."""
        young, old = self._young.row_by_key, self._old.row_by_key
        with self._lock:
            return np.fromiter((k in young or k in old for k in pack_keys(keys)), bool, len(keys))

    def get(self, keys: KeyPairs) -> tuple[FloatRows, NDArray[np.bool_]]:
        """Rows (N, width) of the keys (N, 2), zeros where there is none, and whether there is."""
        with self._lock:
            packed = pack_keys(keys)
            self._promote(packed)
            index = np.fromiter(
                (self._young.row_by_key.get(k, -1) for k in packed), np.int64, len(keys)
            )
            known = index >= 0
            rows = np.zeros((len(keys), self.width), np.float32)
            rows[known] = self._young.rows[index[known]]
            return rows, known

    def add(self, keys: KeyPairs, rows: FloatRows) -> None:
        """Add rows (N, width) under their keys (N, 2)."""
        with self._lock:
            packed = pack_keys(keys)
            self._young.add(packed, rows)
            if len(self._young.row_by_key) > self._max_generation_rows:
                self._old, self._young = self._young, _CacheGeneration(self.width)
                # New rows stay in the young generation for the read that follows.
                self._young.add(packed, rows)

    def clear(self) -> None:
        """Remove all rows."""
        with self._lock:
            self._young, self._old = _CacheGeneration(self.width), _CacheGeneration(self.width)

    def _promote(self, packed_keys: list[int]) -> None:
        """Copy rows that are read from the old generation to the young one."""
        old, young = self._old.row_by_key, self._young.row_by_key
        promoted = [k for k in packed_keys if k in old and k not in young] if old else []
        if promoted:
            self._young.add(promoted, self._old.rows[[old[k] for k in promoted]])


class _CacheGeneration:
    """Rows in one growing array."""

    def __init__(self, width: int) -> None:
        self.row_by_key: dict[int, int] = {}  # packed key -> row
        self.rows: FloatRows = np.empty((0, width), np.float32)

    def add(self, packed_keys: list[int], rows: FloatRows) -> None:
        new = {k: i for i, k in enumerate(packed_keys) if k not in self.row_by_key}
        start, end = len(self.row_by_key), len(self.row_by_key) + len(new)
        if end > len(self.rows):
            larger = np.empty((max(end, 2 * len(self.rows), 256), self.rows.shape[1]), np.float32)
            larger[:start] = self.rows[:start]
            self.rows = larger
        self.rows[start:end] = rows[list(new.values())]
        self.row_by_key.update(zip(new, range(start, end), strict=True))


class PersistentKeyedArray:
    """A keyed array whose rows are also written to a cache entry, gathered into segments.

    Without an entry rows are stored in memory only.
    """

    def __init__(self, array: KeyedArray, entry: CacheEntry | None) -> None:
        self.array, self.entry = array, entry
        self._unflushed: list[tuple[KeyPairs, FloatRows]] = []
        self._last_flush = time.perf_counter()
        if entry is not None:
            array.add(*entry.load())

    def add(self, keys: KeyPairs, rows: FloatRows) -> None:
        """Add rows (N, width) under their keys (N, 2)."""
        self.array.add(keys, rows)
        if self.entry is not None and self.entry.is_writable:
            self._unflushed.append((keys, rows))
            if time.perf_counter() - self._last_flush > FLUSH_INTERVAL_S:
                self.flush()

    def flush(self) -> None:
        """Write the rows that are not on disk yet."""
        unflushed, self._unflushed = self._unflushed, []
        self._last_flush = time.perf_counter()
        if unflushed and self.entry is not None:
            keys, rows = zip(*unflushed, strict=True)
            self.entry.append(np.concatenate(keys), np.concatenate(rows))


def pack_keys(keys: KeyPairs) -> list[int]:
    """One integer for each pair (N, 2) of 32-bit integers."""
    packed: list[int] = ((keys[:, 0] << 32) ^ (keys[:, 1] & 0xFFFFFFFF)).tolist()
    return packed

"""A cache entry on disk: the rows stored under one key."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ...atomic_write import atomic_write
from ...errors import DkanError
from .cache_directory import (
    KEY_FILE,
    evict_entries,
    get_cache_folder,
    get_cache_limit,
    list_keys,
    mark_used,
)
from .cache_key import CacheKey, explain_cache_miss, is_slide_changed
from .cache_segments import (
    SegmentRows,
    concatenate_segments,
    has_zarr,
    list_segments,
    merge_small_segments,
    read_segment,
    remove_stale_folders,
    write_segment,
)

SIZE_CHECK_INTERVAL_BYTES = 64 << 20  # appended between two looks at the size of the whole cache

_open_entries: WeakSet[CacheEntry] = WeakSet()  # what this process uses is not evicted


class CacheEntry:
    """Rows of one key on disk. Safe to use from several threads and processes at once.

    note : one sentence for the person when something is not as usual, else "".
    changed : whether everything stored of this file is of another content.
    damaged : parts that could not be read and were left out by the last `load`.

    Nothing here raises for what a disk can do: a store that cannot be written stops writing.
    """

    def __init__(self, key: CacheKey, folder: Path, limit: int, note: str = "") -> None:
        self.key, self.note, self.damaged_segments = key, note, 0
        self.slide_changed = False
        self._cache_folder, self._limit_bytes = folder, limit
        self._is_write_disabled = False
        self._unchecked_bytes: int | None = None  # bytes since the last look; None before the first
        self._lock = Lock()
        _open_entries.add(self)

    @property
    def folder(self) -> Path:
        return self._cache_folder / self.key.digest

    @property
    def is_writable(self) -> bool:
        """Whether `append` still keeps anything."""
        return not self._is_write_disabled

    def disable_writing(self, note: str) -> None:
        """Write no more in this session, for a reason."""
        self._is_write_disabled, self.note = True, note

    def load(self) -> SegmentRows:
        """Everything stored: distinct keys (N, 2) int64 and their rows (N, width) float32."""
        if not has_zarr():
            return concatenate_segments([], self.key.width)
        read: dict[Path, SegmentRows | None] = {}
        for _ in range(3):  # a part that went meanwhile was merged into another one
            fresh = [p for p in list_segments(self.folder) if p not in read]
            read |= {p: read_segment(p, self.key.digest, self.key.width) for p in fresh}
            if all(read[p] is not None or p.exists() for p in fresh):
                break
        self.damaged_segments = sum(rows is None and p.exists() for p, rows in read.items())
        if self.damaged_segments and not self.note:
            self.note = (
                f"Some of what was stored of {self.key.slide_name} is damaged and is computed anew."
            )
        mark_used(self.folder)
        good = [rows for rows in read.values() if rows is not None]
        read.clear()
        return concatenate_segments(good, self.key.width)

    def append(self, keys: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Keep rows (N, width) under their keys (N, 2). ValueError for other shapes only."""
        keys, rows = np.asarray(keys, np.int64), np.asarray(rows, np.float32)
        if keys.shape != (len(keys), 2) or rows.shape != (len(keys), self.key.width):
            raise ValueError(f"keys {keys.shape} and rows {rows.shape} do not fit the store")
        if not len(keys):
            return
        with self._lock:
            if self._is_write_disabled or not self._ensure_room(keys.nbytes + rows.nbytes):
                return
            try:
                write_segment(self.folder, self.key.digest, keys, rows)
                if not (self.folder / KEY_FILE).exists():  # new, or cleared meanwhile
                    with atomic_write(self.folder / KEY_FILE) as temporary:
                        temporary.write_text(self.key.to_json(), encoding="utf-8")
                merge_small_segments(self.folder, self.key.digest, self.key.width)
            except (OSError, DkanError) as error:
                self.disable_writing(format_write_error(self._cache_folder, error))
                return
        mark_used(self.folder)

    def _ensure_room(self, needed_bytes: int) -> bool:
        """Whether so many bytes fit below the limit; older stores make way for them."""
        step = min(SIZE_CHECK_INTERVAL_BYTES, self._limit_bytes // 16)
        if self._unchecked_bytes is None or self._unchecked_bytes + needed_bytes > step:
            keep = {store.folder for store in list(_open_entries)}
            if not evict_entries(self._cache_folder, self._limit_bytes, needed_bytes, keep):
                self.disable_writing(
                    f"The cache is at its limit of {self._limit_bytes / 2**30:.3g} GB; features are kept "
                    "for this session only (`napari-dkan cache limit` raises it)."
                )
                return False
            self._unchecked_bytes = 0
        self._unchecked_bytes += needed_bytes
        return True


def open_cache_entry(
    key: CacheKey, folder: Path | None = None, limit: int | None = None
) -> CacheEntry:
    """The store of ``key``, empty when nothing was kept yet. Reads the disk, raises nothing.

    folder : where stores lie; default the platform's cache folder.
    limit : bytes that all stores in it may take together; default the person's setting.
    """
    folder = get_cache_folder() if folder is None else Path(folder)
    try:
        limit = get_cache_limit() if limit is None else limit
    except DkanError as error:
        store = CacheEntry(key, folder, 0)
        store.disable_writing(str(error))
        return store
    store = CacheEntry(key, folder, limit)
    if not has_zarr():
        store.disable_writing(
            "The package zarr is missing; features are kept for this session only."
        )
        return store
    remove_stale_folders(folder)
    remove_stale_folders(store.folder)
    if not list_segments(store.folder):
        others = list(list_keys(folder))
        store.note, store.slide_changed = (
            explain_cache_miss(key, others),
            is_slide_changed(key, others),
        )
    return store


def format_write_error(folder: Path, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (
        f"The cache folder {folder} cannot be written ({reason}); "
        "features are kept for this session only."
    )

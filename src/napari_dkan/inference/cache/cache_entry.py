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

SIZE_CHECK_INTERVAL_BYTES = 64 << 20  # appended between two checks of the cache's size

_open_entries: WeakSet[CacheEntry] = WeakSet()  # not evicted by this process


class CacheEntry:
    """Rows of one key on disk, for use by several threads and processes.

    Errors of the disk are not raised: an entry that cannot be written stops writing.

    Attributes
    ----------
    note : str
        A sentence for the user about what is unusual, else "".
    slide_changed : bool
        Whether all entries of the slide's path are of another content.
    damaged_segments : int
        Segments that the last `load` could not read.
    """

    def __init__(self, key: CacheKey, folder: Path, limit: int, note: str = "") -> None:
        self.key, self.note, self.damaged_segments = key, note, 0
        self.slide_changed = False
        self._cache_folder, self._limit_bytes = folder, limit
        self._is_write_disabled = False
        self._unchecked_bytes: int | None = None  # since the last check of the size
        self._lock = Lock()
        _open_entries.add(self)

    @property
    def folder(self) -> Path:
        """Folder of the entry, which may not exist."""
        return self._cache_folder / self.key.digest

    @property
    def is_writable(self) -> bool:
        """Whether `append` writes."""
        return not self._is_write_disabled

    def disable_writing(self, note: str) -> None:
        """Stop writing in this session; the note gives the reason."""
        self._is_write_disabled, self.note = True, note

    def load(self) -> SegmentRows:
        """Read all distinct keys (N, 2) int64 and their rows (N, width) float32."""
        if not has_zarr():
            return concatenate_segments([], self.key.width)
        segments: dict[Path, SegmentRows | None] = {}
        for _ in range(3):  # a segment that disappears was merged into another one
            new = [p for p in list_segments(self.folder) if p not in segments]
            segments |= {p: read_segment(p, self.key.digest, self.key.width) for p in new}
            if all(segments[p] is not None or p.exists() for p in new):
                break
        self.damaged_segments = sum(rows is None and p.exists() for p, rows in segments.items())
        if self.damaged_segments and not self.note:
            self.note = (
                f"Some of what was stored of {self.key.slide_name} is damaged and is computed anew."
            )
        mark_used(self.folder)
        good = [rows for rows in segments.values() if rows is not None]
        segments.clear()  # frees each segment when it is concatenated
        return concatenate_segments(good, self.key.width)

    def append(self, keys: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Write rows (N, width) under their keys (N, 2).

        Raises
        ------
        ValueError
            For other shapes.
        """
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
                if not (self.folder / KEY_FILE).exists():  # new, or removed by another process
                    with atomic_write(self.folder / KEY_FILE) as temporary:
                        temporary.write_text(self.key.to_json(), encoding="utf-8")
                merge_small_segments(self.folder, self.key.digest, self.key.width)
            except (OSError, DkanError) as error:
                self.disable_writing(format_write_error(self._cache_folder, error))
                return
        mark_used(self.folder)

    def _ensure_room(self, needed_bytes: int) -> bool:
        """Whether the bytes fit below the limit, after older entries are evicted."""
        step = min(SIZE_CHECK_INTERVAL_BYTES, self._limit_bytes // 16)
        if self._unchecked_bytes is None or self._unchecked_bytes + needed_bytes > step:
            protected = {entry.folder for entry in list(_open_entries)}
            if not evict_entries(self._cache_folder, self._limit_bytes, needed_bytes, protected):
                self.disable_writing(
                    f"The cache is at its limit of {self._limit_bytes / 2**30:.3g} GB; features "
                    "are kept for this session only (`napari-dkan cache limit` raises it)."
                )
                return False
            self._unchecked_bytes = 0
        self._unchecked_bytes += needed_bytes
        return True


def open_cache_entry(
    key: CacheKey, folder: Path | None = None, limit: int | None = None
) -> CacheEntry:
    """Open the entry of a key, an empty one when there is none. Reads the disk, raises nothing.

    Parameters
    ----------
    folder : Path, optional
        Folder of all entries; the platform's cache folder when None.
    limit : int, optional
        Bytes that all entries together may take; the user's setting when None.
    """
    folder = get_cache_folder() if folder is None else Path(folder)
    try:
        limit = get_cache_limit() if limit is None else limit
    except DkanError as error:
        entry = CacheEntry(key, folder, 0)
        entry.disable_writing(str(error))
        return entry
    entry = CacheEntry(key, folder, limit)
    if not has_zarr():
        entry.disable_writing(
            "The package zarr is missing; features are kept for this session only."
        )
        return entry
    remove_stale_folders(folder)
    remove_stale_folders(entry.folder)
    if not list_segments(entry.folder):
        other_keys = list_keys(folder)
        entry.note = explain_cache_miss(key, other_keys)
        entry.slide_changed = is_slide_changed(key, other_keys)
    return entry


def format_write_error(folder: Path, error: Exception) -> str:
    """Format the note of an entry that cannot be written."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (
        f"The cache folder {folder} cannot be written ({reason}); "
        "features are kept for this session only."
    )

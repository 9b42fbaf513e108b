"""A store: the rows known on one slide, from earlier visits and this one."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ...errors import DkanError
from ...files import written_whole
from .explain import changed, explain
from .folders import KEY_FILE, cache_folder, keys_in, touch
from .key import StoreKey
from .limit import cache_limit, make_room
from .merge import merge_small
from .parts import Rows, has_zarr, joined, part_paths, read_part, sweep, write_part

CHECK_BYTES = 64 << 20  # appended between two looks at the size of the whole cache

_open: WeakSet[Store] = WeakSet()  # what this process uses is not evicted


class Store:
    """Rows of one key on disk. Safe to use from several threads and processes at once.

    note : one sentence for the person when something is not as usual, else "".
    changed : whether everything stored of this file is of another content.
    damaged : parts that could not be read and were left out by the last `load`.

    Nothing here raises for what a disk can do: a store that cannot be written stops writing.
    """

    def __init__(self, key: StoreKey, folder: Path, limit: int, note: str = "") -> None:
        self.key, self.note, self.damaged = key, note, 0
        self.changed = False
        self._cache, self._limit = folder, limit
        self._stopped = False
        self._unchecked: int | None = None  # bytes since the last look; None before the first
        self._lock = Lock()
        _open.add(self)

    @property
    def folder(self) -> Path:
        return self._cache / self.key.identity

    @property
    def writing(self) -> bool:
        """Whether `append` still keeps anything."""
        return not self._stopped

    def stop(self, note: str) -> None:
        """Write no more in this session, for a reason."""
        self._stopped, self.note = True, note

    def load(self) -> Rows:
        """Everything stored: distinct keys (N, 2) int64 and their rows (N, width) float32."""
        if not has_zarr():
            return joined([], self.key.width)
        read: dict[Path, Rows | None] = {}
        for _ in range(3):  # a part that went meanwhile was merged into another one
            fresh = [p for p in part_paths(self.folder) if p not in read]
            read |= {p: read_part(p, self.key.identity, self.key.width) for p in fresh}
            if all(read[p] is not None or p.exists() for p in fresh):
                break
        self.damaged = sum(rows is None and p.exists() for p, rows in read.items())
        if self.damaged and not self.note:
            self.note = (
                f"Some of what was stored of {self.key.slide_name} is damaged and is computed anew."
            )
        touch(self.folder)
        good = [rows for rows in read.values() if rows is not None]
        read.clear()
        return joined(good, self.key.width)

    def append(self, keys: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Keep rows (N, width) under their keys (N, 2). ValueError for other shapes only."""
        keys, rows = np.asarray(keys, np.int64), np.asarray(rows, np.float32)
        if keys.shape != (len(keys), 2) or rows.shape != (len(keys), self.key.width):
            raise ValueError(f"keys {keys.shape} and rows {rows.shape} do not fit the store")
        if not len(keys):
            return
        with self._lock:
            if self._stopped or not self._has_room(keys.nbytes + rows.nbytes):
                return
            try:
                write_part(self.folder, self.key.identity, keys, rows)
                if not (self.folder / KEY_FILE).exists():  # new, or cleared meanwhile
                    with written_whole(self.folder / KEY_FILE) as temporary:
                        temporary.write_text(self.key.to_json(), encoding="utf-8")
                merge_small(self.folder, self.key.identity, self.key.width)
            except (OSError, DkanError) as error:
                self.stop(cannot_write(self._cache, error))
                return
        touch(self.folder)

    def _has_room(self, wanted: int) -> bool:
        """Whether so many bytes fit below the limit; older stores make way for them."""
        step = min(CHECK_BYTES, self._limit // 16)
        if self._unchecked is None or self._unchecked + wanted > step:
            keep = {store.folder for store in list(_open)}
            if not make_room(self._cache, self._limit, wanted, keep):
                self.stop(
                    f"The cache is at its limit of {self._limit / 2**30:.3g} GB; features are kept "
                    "for this session only (`napari-dkan cache limit` raises it)."
                )
                return False
            self._unchecked = 0
        self._unchecked += wanted
        return True


def open_store(key: StoreKey, folder: Path | None = None, limit: int | None = None) -> Store:
    """The store of ``key``, empty when nothing was kept yet. Reads the disk, raises nothing.

    folder : where stores lie; default the platform's cache folder.
    limit : bytes that all stores in it may take together; default the person's setting.
    """
    folder = cache_folder() if folder is None else Path(folder)
    try:
        limit = cache_limit() if limit is None else limit
    except DkanError as error:
        store = Store(key, folder, 0)
        store.stop(str(error))
        return store
    store = Store(key, folder, limit)
    if not has_zarr():
        store.stop("The package zarr is missing; features are kept for this session only.")
        return store
    sweep(folder)
    sweep(store.folder)
    if not part_paths(store.folder):
        others = list(keys_in(folder))
        store.note, store.changed = explain(key, others), changed(key, others)
    return store


def cannot_write(folder: Path, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (
        f"The cache folder {folder} cannot be written ({reason}); "
        "features are kept for this session only."
    )

"""Segments of a cache entry: immutable zarr groups, written atomically and merged when many."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SegmentRows = tuple[NDArray[np.int64], NDArray[np.float32]]  # keys (N, 2) and rows (N, width)

SEGMENT_PREFIX, TEMPORARY_PREFIX, REMOVED_PREFIX = "part-", ".writing-", ".removed-"
SEGMENT_CHUNK_BYTES = 4 << 20
STALE_SECONDS = 24 * 3600.0


def has_zarr() -> bool:
    """Whether parts can be read and written here: a GPU box may do without zarr."""
    try:
        import zarr  # noqa: F401
    except ImportError:
        return False
    return True


def list_segments(folder: Path) -> list[Path]:
    """The parts in a store's folder; none when there is no such folder."""
    try:
        return [p for p in folder.iterdir() if p.name.startswith(SEGMENT_PREFIX)]
    except OSError:
        return []


def parse_row_count(segment: Path) -> int:
    """Rows of a part by its name; 0 when the name is none of ours."""
    count = segment.name.removeprefix(SEGMENT_PREFIX).split("-")[0]
    return int(count) if count.isdecimal() else 0


def write_segment(
    folder: Path, digest: str, keys: NDArray[np.int64], rows: NDArray[np.float32]
) -> None:
    """Put a new part into ``folder``, which is made when missing; OSError when that fails."""
    import zarr

    temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        group = zarr.create_group(temporary, zarr_format=3, attributes={"store": digest})
        _write_array(group, "keys", keys)
        _write_array(group, "rows", rows)
        temporary.rename(folder / f"{SEGMENT_PREFIX}{len(keys)}-{uuid.uuid4().hex}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_array(group: Any, name: str, values: NDArray[Any]) -> None:
    from zarr.codecs import Crc32cCodec

    rows = max(1, SEGMENT_CHUNK_BYTES // (values.itemsize * values.shape[1]))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(min(rows, len(values)), values.shape[1]),
        compressors=[Crc32cCodec()],
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},  # fewer folders
        # a chunk of zeros is written too: one that is absent has been lost
        config={"write_empty_chunks": True},
    )
    array[:] = values


def read_segment(segment: Path, digest: str, width: int) -> SegmentRows | None:
    """What a part holds, to the bit; None when it is damaged, gone or of another store."""
    import zarr

    try:
        group = zarr.open_group(segment, mode="r", zarr_format=3)
        if group.attrs["store"] != digest:
            return None
        count = parse_row_count(segment)
        keys = _read_array(group["keys"], (count, 2), np.dtype(np.int64))
        rows = _read_array(group["rows"], (count, width), np.dtype(np.float32))
    except MemoryError:
        raise
    except Exception:
        # Damaged metadata and chunks raise nearly every built-in exception; whichever it is,
        # the part cannot be used and its rows are computed anew.
        return None
    return None if keys is None or rows is None else (keys, rows)


def _read_array(array: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    if array.shape != shape or array.dtype != dtype:
        return None
    values = array[:]
    # zarr reads a lost chunk as zeros; looked at afterwards, as a merge may take the part away
    return values if array.nchunks_initialized == array.nchunks else None


def concatenate_segments(segments: list[SegmentRows], width: int) -> SegmentRows:
    """All rows of several parts, each key once: rows of the same key are equal.

    Empties the list on its way, so that the memory is not needed twice.
    """
    count = sum(len(keys) for keys, _ in segments)
    keys, rows = np.empty((count, 2), np.int64), np.empty((count, width), np.float32)
    while segments:
        some_keys, some_rows = segments.pop()
        first = count - len(some_keys)
        keys[first:count], rows[first:count] = some_keys, some_rows
        count = first
    distinct = np.unique(keys, axis=0, return_index=True)[1]
    if len(distinct) == len(keys):
        return keys, rows
    distinct.sort()
    return keys[distinct], rows[distinct]


def remove_folder(folder: Path) -> None:
    """Take a folder away under a name that nobody reads, then delete it; OSError is passed over:
    what cannot be removed now is found by `sweep` later."""
    removed = folder.with_name(f"{REMOVED_PREFIX}{uuid.uuid4().hex}")
    try:
        folder.rename(removed)
    except OSError:
        return  # gone already, or in use on a system that locks what is open
    shutil.rmtree(removed, ignore_errors=True)


def remove_stale_folders(folder: Path) -> None:
    """Delete temporaries of processes that were killed: those older than a day."""
    try:
        found = [
            p for p in folder.iterdir() if p.name.startswith((TEMPORARY_PREFIX, REMOVED_PREFIX))
        ]
    except OSError:
        return
    for path in found:
        try:
            if time.time() - path.stat().st_mtime < STALE_SECONDS:
                continue
            if not path.is_dir():
                path.unlink()
        except OSError:
            continue
        shutil.rmtree(path, ignore_errors=True)


MAX_SMALL_SEGMENTS = 32
SMALL_SEGMENT_BYTES = 8 << 20


def merge_small_segments(folder: Path, digest: str, width: int) -> None:
    """Merge the small parts when there are more than `MANY`; OSError when it cannot be written.

    The merged part stands before the others go. A process killed in between leaves rows twice,
    which readers allow for; two that merge at once do the same. Damaged parts go as well.
    """
    parts = list_segments(folder)
    if len(parts) <= MAX_SMALL_SEGMENTS:
        return
    small = [p for p in parts if parse_row_count(p) * width * 4 < SMALL_SEGMENT_BYTES]
    if len(small) <= MAX_SMALL_SEGMENTS:
        return
    good = [found for p in small if (found := read_segment(p, digest, width)) is not None]
    if good:
        write_segment(folder, digest, *concatenate_segments(good, width))
    for part in small:
        remove_folder(part)

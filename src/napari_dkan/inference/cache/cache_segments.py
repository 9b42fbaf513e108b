"""Segments of a cache entry: immutable zarr groups, written atomically and merged when many."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

SegmentRows = tuple[NDArray[np.int64], NDArray[np.float32]]  # keys (N, 2) and rows (N, width)

SEGMENT_PREFIX, TEMPORARY_PREFIX, REMOVED_PREFIX = "part-", ".writing-", ".removed-"
SEGMENT_CHUNK_BYTES = 4 << 20
STALE_SECONDS = 24 * 3600.0


def has_zarr() -> bool:
    """Check whether zarr, which segments need, is installed."""
    try:
        import zarr  # noqa: F401
    except ImportError:
        return False
    return True


def list_segments(folder: Path) -> list[Path]:
    """List the segments in the folder of an entry, which may not exist."""
    try:
        return [p for p in folder.iterdir() if p.name.startswith(SEGMENT_PREFIX)]
    except OSError:
        return []


def parse_row_count(segment: Path) -> int:
    """Parse the number of rows from a segment's name; 0 for another name."""
    count = segment.name.removeprefix(SEGMENT_PREFIX).split("-")[0]
    return int(count) if count.isdecimal() else 0


def write_segment(
    folder: Path, digest: str, keys: NDArray[np.int64], rows: NDArray[np.float32]
) -> None:
    """Write a new segment into the folder of an entry.

    Raises
    ------
    OSError
        When it cannot be written.
    """
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
        # A missing chunk is then always a damaged one.
        config={"write_empty_chunks": True},
    )
    array[:] = values


def read_segment(segment: Path, digest: str, width: int) -> SegmentRows | None:
    """Read a segment; None when it is damaged, missing or of another entry."""
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
    except Exception as error:
        # Damaged metadata and chunks raise nearly every built-in exception.
        log.info("%s is not used: %s: %s", segment, type(error).__name__, error)
        return None
    return None if keys is None or rows is None else (keys, rows)


def _read_array(array: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    if array.shape != shape or array.dtype != dtype:
        return None
    values = array[:]
    # zarr reads a missing chunk as zeros. A merge may remove the segment during the read, so the
    # chunks are counted after it.
    return values if array.nchunks_initialized == array.nchunks else None


def concatenate_segments(segments: list[SegmentRows], width: int) -> SegmentRows:
    """Concatenate segments and remove duplicate keys, whose rows are equal.

    The list is emptied on the way to halve the peak memory.
    """
    count = sum(len(keys) for keys, _ in segments)
    keys, rows = np.empty((count, 2), np.int64), np.empty((count, width), np.float32)
    while segments:
        segment_keys, segment_rows = segments.pop()
        first = count - len(segment_keys)
        keys[first:count], rows[first:count] = segment_keys, segment_rows
        count = first
    distinct = np.unique(keys, axis=0, return_index=True)[1]
    if len(distinct) == len(keys):
        return keys, rows
    distinct.sort()
    return keys[distinct], rows[distinct]


def remove_folder(folder: Path) -> None:
    """Rename a folder so that no process reads it, then delete it.

    Errors are ignored: `remove_stale_folders` deletes the rest later.
    """
    removed = folder.with_name(f"{REMOVED_PREFIX}{uuid.uuid4().hex}")
    try:
        folder.rename(removed)
    except OSError:
        return  # removed already, or locked because it is open
    shutil.rmtree(removed, ignore_errors=True)


def remove_stale_folders(folder: Path) -> None:
    """Delete temporary folders older than a day, left by killed processes."""
    try:
        temporaries = [
            p for p in folder.iterdir() if p.name.startswith((TEMPORARY_PREFIX, REMOVED_PREFIX))
        ]
    except OSError:
        return
    for path in temporaries:
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
    """Merge small segments when there are more than `MAX_SMALL_SEGMENTS`; remove damaged ones.

    The merged segment is written before the others are removed. A process that is killed in
    between, or that merges at the same time as another one, leaves duplicate rows, which
    `concatenate_segments` removes.

    Raises
    ------
    OSError
        When the merged segment cannot be written.
    """
    segments = list_segments(folder)
    if len(segments) <= MAX_SMALL_SEGMENTS:
        return
    small = [p for p in segments if parse_row_count(p) * width * 4 < SMALL_SEGMENT_BYTES]
    if len(small) <= MAX_SMALL_SEGMENTS:
        return
    good = [rows for p in small if (rows := read_segment(p, digest, width)) is not None]
    if good:
        write_segment(folder, digest, *concatenate_segments(good, width))
    for segment in small:
        remove_folder(segment)

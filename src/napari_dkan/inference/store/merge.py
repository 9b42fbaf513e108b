"""Merging: many small parts become one, so that a store opens quickly."""

from __future__ import annotations

from pathlib import Path

from .parts import concatenate_segments, list_segments, read_segment, remove_folder, parse_row_count, write_segment

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

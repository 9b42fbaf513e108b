"""Merging: many small parts become one, so that a store opens quickly."""

from __future__ import annotations

from pathlib import Path

from .parts import joined, part_paths, read_part, remove_folder, row_count, write_part

MANY = 32
SMALL_BYTES = 8 << 20


def merge_small(folder: Path, identity: str, width: int) -> None:
    """Merge the small parts when there are more than `MANY`; OSError when it cannot be written.

    The merged part stands before the others go. A process killed in between leaves rows twice,
    which readers allow for; two that merge at once do the same. Damaged parts go as well.
    """
    parts = part_paths(folder)
    if len(parts) <= MANY:
        return
    small = [p for p in parts if row_count(p) * width * 4 < SMALL_BYTES]
    if len(small) <= MANY:
        return
    good = [found for p in small if (found := read_part(p, identity, width)) is not None]
    if good:
        write_part(folder, identity, *joined(good, width))
    for part in small:
        remove_folder(part)

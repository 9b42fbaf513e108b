"""Hash files with SHA-256."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

MAX_CACHED_HASHES = 8  # a batch of hundreds of slides uses the same few checkpoints


def compute_sha256(path: Path) -> str:
    """Compute the hexadecimal SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compute_sha256_cached(path: Path) -> str:
    """Compute the SHA-256 of a file; an unchanged size and time of change are not read again."""
    status = path.stat()
    return _compute_sha256_of_version(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=MAX_CACHED_HASHES)
def _compute_sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    return compute_sha256(path)

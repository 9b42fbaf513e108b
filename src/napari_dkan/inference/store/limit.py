"""How large the cache may grow, and what makes way when it would grow larger."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from pathlib import Path

from ...errors import CacheError
from ...files import atomic_write
from .folders import list_entries
from .parts import remove_folder

DEFAULT_LIMIT_GIB = 10.0
BYTES_PER_GIB = 2**30


def get_cache_limit() -> int:
    """Bytes that all stores may take together: the environment variable NAPARI_DKAN_CACHE_GB,
    else what `set_cache_limit` stored, else 10 GiB. CacheError when the variable is no number."""
    named = os.environ.get("NAPARI_DKAN_CACHE_GB")
    if not named:
        return int(_read_limit_gib() * BYTES_PER_GIB)
    try:
        return int(_validate_gib(float(named)) * BYTES_PER_GIB)
    except ValueError as error:
        raise CacheError(
            f"NAPARI_DKAN_CACHE_GB is {named!r}; set it to a number of gigabytes such as 10, "
            "0 for no cache."
        ) from error


def set_cache_limit(gib: float) -> None:
    """Remember the limit, in GiB; 0 stores nothing. CacheError for what is no size, OutputError
    when it cannot be written."""
    try:
        gib = _validate_gib(gib)
    except ValueError as error:
        raise CacheError("The limit of the cache is a number of gigabytes, 0 or more.") from error
    with atomic_write(_get_limit_file()) as temporary:
        temporary.write_text(json.dumps({"limit_gib": gib}), encoding="utf-8")


def evict_entries(folder: Path, limit: int, needed_bytes: int, protected_folders: Collection[Path]) -> bool:
    """Remove stores, used longest ago first, until ``wanted`` more bytes fit below ``limit``.

    keep : folders of stores that stay whatever happens. Returns whether there is room; what
    cannot lead to it is not removed.
    """
    stores = list_entries(folder)
    excess = sum(s.size_bytes for s in stores) + needed_bytes - limit
    free = [s for s in reversed(stores) if s.folder not in protected_folders]
    if excess > sum(s.size_bytes for s in free):
        return False
    for stored in free:
        if excess <= 0:
            break
        remove_folder(stored.folder)
        excess -= 0 if stored.folder.exists() else stored.size_bytes
    return excess <= 0


def _get_limit_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("napari-dkan") / "cache.json"


def _read_limit_gib() -> float:
    try:
        return _validate_gib(json.loads(_get_limit_file().read_text(encoding="utf-8"))["limit_gib"])
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_LIMIT_GIB  # never set, or a file that is none of ours


def _validate_gib(gib: float) -> float:
    if not 0 <= gib < math.inf:
        raise ValueError(gib)
    return float(gib)

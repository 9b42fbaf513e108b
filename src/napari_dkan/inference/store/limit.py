"""How large the cache may grow, and what makes way when it would grow larger."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from pathlib import Path

from ...errors import CacheError
from ...files import written_whole
from .folders import stores_in
from .parts import remove_folder

DEFAULT_GIB = 10.0
GIB = 2**30


def cache_limit() -> int:
    """Bytes that all stores may take together: the environment variable NAPARI_DKAN_CACHE_GB,
    else what `set_cache_limit` stored, else 10 GiB. CacheError when the variable is no number."""
    named = os.environ.get("NAPARI_DKAN_CACHE_GB")
    if not named:
        return int(_stored_gib() * GIB)
    try:
        return int(_sensible(float(named)) * GIB)
    except ValueError as error:
        raise CacheError(
            f"NAPARI_DKAN_CACHE_GB is {named!r}; set it to a number of gigabytes such as 10, "
            "0 for no cache."
        ) from error


def set_cache_limit(gib: float) -> None:
    """Remember the limit, in GiB; 0 stores nothing. CacheError for what is no size, OutputError
    when it cannot be written."""
    try:
        gib = _sensible(gib)
    except ValueError as error:
        raise CacheError("The limit of the cache is a number of gigabytes, 0 or more.") from error
    with written_whole(_file()) as temporary:
        temporary.write_text(json.dumps({"limit_gib": gib}), encoding="utf-8")


def make_room(folder: Path, limit: int, wanted: int, keep: Collection[Path]) -> bool:
    """Remove stores, used longest ago first, until ``wanted`` more bytes fit below ``limit``.

    keep : folders of stores that stay whatever happens. Returns whether there is room; what
    cannot lead to it is not removed.
    """
    stores = stores_in(folder)
    excess = sum(s.bytes for s in stores) + wanted - limit
    free = [s for s in reversed(stores) if s.folder not in keep]
    if excess > sum(s.bytes for s in free):
        return False
    for stored in free:
        if excess <= 0:
            break
        remove_folder(stored.folder)
        excess -= 0 if stored.folder.exists() else stored.bytes
    return excess <= 0


def _file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("napari-dkan") / "cache.json"


def _stored_gib() -> float:
    try:
        return _sensible(json.loads(_file().read_text(encoding="utf-8"))["limit_gib"])
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_GIB  # never set, or a file that is none of ours


def _sensible(gib: float) -> float:
    if not 0 <= gib < math.inf:
        raise ValueError(gib)
    return float(gib)

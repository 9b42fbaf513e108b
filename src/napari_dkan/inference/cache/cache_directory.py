"""The cache directory: its location, entries, size limit, eviction and the format of sizes and ages."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...atomic_write import atomic_write
from ...errors import CacheError
from .cache_key import CacheKey
from .cache_segments import list_segments, parse_row_count, remove_folder

AGE_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"))


def format_size(count: float) -> str:
    """Bytes as "0 MB", "12 MB", "1.2 GB": GB of 2**30 bytes, as the limit is counted."""
    if count < 1000 * 2**20:
        return f"{count / 2**20:.0f} MB" if count >= 2**20 or not count else "< 1 MB"
    return f"{count / 2**30:.1f} GB".replace(".0 GB", " GB")


def format_age(seconds: float) -> str:
    """An age as "now", "5 minutes ago", "1 day ago"."""
    for length, name in AGE_UNITS:
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "now"


KEY_FILE, LAST_USED_FILE = "key.json", "used"
ENTRY_NAME_PATTERN = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class CacheEntryInfo:
    """A store on disk: bytes of its files, seconds since the epoch when it was used last.

    key : None when its description is damaged.
    """

    folder: Path
    key: CacheKey | None
    row_count: int
    size_bytes: int
    last_used: float

    @property
    def slide_name(self) -> str:
        return "unknown" if self.key is None else self.key.slide_name


def get_cache_folder() -> Path:
    """The folder of all stores; the environment variable NAPARI_DKAN_CACHE names another one."""
    import platformdirs

    named = os.environ.get("NAPARI_DKAN_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("napari-dkan") / "features"


def list_entries(folder: Path) -> list[CacheEntryInfo]:
    """The stores in a folder, used last first; anything else that lies there is left out."""
    found = [_read_entry_info(path) for path in _iter_entry_folders(folder)]
    return sorted(found, key=lambda stored: -stored.last_used)


def list_keys(folder: Path) -> list[CacheKey]:
    """What is stored in a folder, without a look at its size."""
    keys = (_read_key(path) for path in _iter_entry_folders(folder))
    return [key for key in keys if key is not None]


def compute_cache_size(folder: Path | None = None) -> int:
    """Bytes of all stores. Looks at every file: not for the GUI thread."""
    return sum(
        _compute_folder_size(path) for path in _iter_entry_folders(folder or get_cache_folder())
    )


def clear_cache(folder: Path | None = None, slide: str | None = None) -> int:
    """Remove all stores, or those of the slide of this file name or stem; bytes freed.

    Stores in use are removed as well: what a session has read it keeps, and what it computes
    later makes a new store.
    """
    freed = 0
    for stored in list_entries(folder or get_cache_folder()):
        name = stored.slide_name
        if slide is None or slide in (name, Path(name).stem, Path(name).stem.removesuffix(".ome")):
            remove_folder(stored.folder)
            freed += 0 if stored.folder.exists() else stored.size_bytes
    return freed


def mark_used(entry_folder: Path) -> None:
    """Note that a store is in use; costs the note, not the work, where nothing can be written."""
    try:
        if entry_folder.is_dir():
            (entry_folder / LAST_USED_FILE).touch()
    except OSError:
        return


def _iter_entry_folders(folder: Path) -> Iterator[Path]:
    try:
        paths = [p for p in folder.iterdir() if ENTRY_NAME_PATTERN.fullmatch(p.name)]
    except OSError:  # no folder yet, or none that may be read
        return
    for path in paths:
        # by what is in it too: the folder may be one that a person chose and has other things in
        if (path / KEY_FILE).is_file() or list_segments(path):
            yield path


def _read_entry_info(path: Path) -> CacheEntryInfo:
    rows = sum(parse_row_count(part) for part in list_segments(path))
    return CacheEntryInfo(
        path, _read_key(path), rows, _compute_folder_size(path), _read_last_used(path)
    )


def _read_key(path: Path) -> CacheKey | None:
    try:
        return CacheKey.from_json((path / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_last_used(path: Path) -> float:
    for file in (path / LAST_USED_FILE, path):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _compute_folder_size(path: Path) -> int:
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


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


def evict_entries(
    folder: Path, limit: int, needed_bytes: int, protected_folders: Collection[Path]
) -> bool:
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

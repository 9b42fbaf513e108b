"""The cache directory: location, entries, size limit and eviction."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...atomic_write import write_json
from ...errors import CacheError
from .cache_key import CacheKey
from .cache_segments import list_segments, parse_row_count, remove_folder

AGE_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"))


def format_size(count: float) -> str:
    """Format bytes as "0 MB", "12 MB" or "1.2 GB", with 2**30 bytes to a GB as in the limit."""
    if count < 1000 * 2**20:
        return f"{count / 2**20:.0f} MB" if count >= 2**20 or not count else "< 1 MB"
    return f"{count / 2**30:.1f} GB".replace(".0 GB", " GB")


def format_age(seconds: float) -> str:
    """Format an age as "now", "5 minutes ago" or "1 day ago"."""
    for length, name in AGE_UNITS:
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "now"


KEY_FILE, LAST_USED_FILE = "key.json", "used"
ENTRY_NAME_PATTERN = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class CacheEntryInfo:
    """A cache entry on disk.

    Attributes
    ----------
    key : CacheKey or None
        None when its file is damaged.
    size_bytes : int
        Bytes of its files.
    last_used : float
        Seconds since the epoch.
    """

    folder: Path
    key: CacheKey | None
    row_count: int
    size_bytes: int
    last_used: float

    @property
    def slide_name(self) -> str:
        """File name of the slide."""
        return "unknown" if self.key is None else self.key.slide_name


def get_cache_folder() -> Path:
    """Get the folder of all entries; the environment variable NAPARI_DKAN_CACHE overrides it."""
    import platformdirs

    override = os.environ.get("NAPARI_DKAN_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("napari-dkan") / "features"


def list_entries(folder: Path) -> list[CacheEntryInfo]:
    """List the entries in a folder, the last used first; other files are ignored."""
    entries = [_read_entry_info(path) for path in _iter_entry_folders(folder)]
    return sorted(entries, key=lambda entry: -entry.last_used)


def list_keys(folder: Path) -> list[CacheKey]:
    """List the keys of the entries in a folder without reading their sizes."""
    keys = (_read_key(path) for path in _iter_entry_folders(folder))
    return [key for key in keys if key is not None]


def compute_cache_size(folder: Path | None = None) -> int:
    """Compute the bytes of all entries. It reads the size of every file: not in the GUI thread."""
    return sum(
        _compute_folder_size(path) for path in _iter_entry_folders(folder or get_cache_folder())
    )


def clear_cache(folder: Path | None = None, slide: str | None = None) -> int:
    """Remove all entries, or those of one slide.

    Entries in use are removed too: a session keeps the rows that it has loaded, and stores later
    ones in a new entry.

    Parameters
    ----------
    slide : str, optional
        File name or stem.

    Returns
    -------
    int
        Bytes freed.
    """
    freed = 0
    for entry in list_entries(folder or get_cache_folder()):
        name = entry.slide_name
        if slide is None or slide in (name, Path(name).stem, Path(name).stem.removesuffix(".ome")):
            remove_folder(entry.folder)
            freed += 0 if entry.folder.exists() else entry.size_bytes
    return freed


def mark_used(entry_folder: Path) -> None:
    """Set the time of the last use, where the entry can be written."""
    try:
        if entry_folder.is_dir():
            (entry_folder / LAST_USED_FILE).touch()
    except OSError:
        return


def _iter_entry_folders(folder: Path) -> Iterator[Path]:
    try:
        paths = [p for p in folder.iterdir() if ENTRY_NAME_PATTERN.fullmatch(p.name)]
    except OSError:  # missing or not readable
        return
    for path in paths:
        # A folder chosen by the user may contain other things with such names.
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
    """Get the bytes that all entries together may take.

    The environment variable NAPARI_DKAN_CACHE_GB overrides the value of `set_cache_limit`; the
    default is 10 GiB.

    Raises
    ------
    CacheError
        When the variable is not a number.
    """
    override = os.environ.get("NAPARI_DKAN_CACHE_GB")
    if not override:
        return int(_read_limit_gib() * BYTES_PER_GIB)
    try:
        return int(_validate_gib(float(override)) * BYTES_PER_GIB)
    except ValueError as error:
        raise CacheError(
            f"NAPARI_DKAN_CACHE_GB is {override!r}; set it to a number of gigabytes such as 10, "
            "0 for no cache."
        ) from error


def set_cache_limit(gib: float) -> None:
    """Store the limit in GiB; with 0 nothing is cached.

    Raises
    ------
    CacheError
        When it is not a size.
    OutputError
        When it cannot be written.
    """
    try:
        gib = _validate_gib(gib)
    except ValueError as error:
        raise CacheError("The limit of the cache is a number of gigabytes, 0 or more.") from error
    write_json(_get_limit_file(), {"limit_gib": gib})


def evict_entries(
    folder: Path, limit: int, needed_bytes: int, protected_folders: Collection[Path]
) -> bool:
    """Remove the least recently used entries until ``needed_bytes`` more fit below the limit.

    Parameters
    ----------
    protected_folders : collection of Path
        Folders of entries that are not removed.

    Returns
    -------
    bool
        Whether the bytes fit. Nothing is removed when they cannot.
    """
    entries = list_entries(folder)
    excess = sum(e.size_bytes for e in entries) + needed_bytes - limit
    removable = [e for e in reversed(entries) if e.folder not in protected_folders]
    if excess > sum(e.size_bytes for e in removable):
        return False
    for entry in removable:
        if excess <= 0:
            break
        remove_folder(entry.folder)
        excess -= 0 if entry.folder.exists() else entry.size_bytes
    return excess <= 0


def _get_limit_file() -> Path:
    import platformdirs

    return platformdirs.user_config_path("napari-dkan") / "cache.json"


def _read_limit_gib() -> float:
    try:
        return _validate_gib(json.loads(_get_limit_file().read_text(encoding="utf-8"))["limit_gib"])
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_LIMIT_GIB  # missing or invalid


def _validate_gib(gib: float) -> float:
    if not 0 <= gib < math.inf:
        raise ValueError(gib)
    return float(gib)

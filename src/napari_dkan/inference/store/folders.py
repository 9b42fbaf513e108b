"""Where stores lie, how large they are, when they were used last, and their removal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .key import CacheKey
from .parts import list_segments, remove_folder, parse_row_count

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
    return sum(_compute_folder_size(path) for path in _iter_entry_folders(folder or get_cache_folder()))


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
    return CacheEntryInfo(path, _read_key(path), rows, _compute_folder_size(path), _read_last_used(path))


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

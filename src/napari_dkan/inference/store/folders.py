"""Where stores lie, how large they are, when they were used last, and their removal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .key import StoreKey
from .parts import part_paths, remove_folder, row_count

KEY_FILE, USED_FILE = "key.json", "used"
NAME = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Stored:
    """A store on disk: bytes of its files, seconds since the epoch when it was used last.

    key : None when its description is damaged.
    """

    folder: Path
    key: StoreKey | None
    rows: int
    bytes: int
    used: float

    @property
    def slide_name(self) -> str:
        return "unknown" if self.key is None else self.key.slide_name


def cache_folder() -> Path:
    """The folder of all stores; the environment variable NAPARI_DKAN_CACHE names another one."""
    import platformdirs

    named = os.environ.get("NAPARI_DKAN_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("napari-dkan") / "features"


def stores_in(folder: Path) -> list[Stored]:
    """The stores in a folder, used last first; anything else that lies there is left out."""
    found = [_stored(path) for path in _store_folders(folder)]
    return sorted(found, key=lambda stored: -stored.used)


def keys_in(folder: Path) -> list[StoreKey]:
    """What is stored in a folder, without a look at its size."""
    keys = (_key(path) for path in _store_folders(folder))
    return [key for key in keys if key is not None]


def cache_size(folder: Path | None = None) -> int:
    """Bytes of all stores. Looks at every file: not for the GUI thread."""
    return sum(_size(path) for path in _store_folders(folder or cache_folder()))


def clear_cache(folder: Path | None = None, slide: str | None = None) -> int:
    """Remove all stores, or those of the slide of this file name or stem; bytes freed.

    Stores in use are removed as well: what a session has read it keeps, and what it computes
    later makes a new store.
    """
    freed = 0
    for stored in stores_in(folder or cache_folder()):
        name = stored.slide_name
        if slide is None or slide in (name, Path(name).stem, Path(name).stem.removesuffix(".ome")):
            remove_folder(stored.folder)
            freed += 0 if stored.folder.exists() else stored.bytes
    return freed


def touch(store: Path) -> None:
    """Note that a store is in use; costs the note, not the work, where nothing can be written."""
    try:
        if store.is_dir():
            (store / USED_FILE).touch()
    except OSError:
        return


def _store_folders(folder: Path) -> Iterator[Path]:
    try:
        paths = [p for p in folder.iterdir() if NAME.fullmatch(p.name)]
    except OSError:  # no folder yet, or none that may be read
        return
    for path in paths:
        # by what is in it too: the folder may be one that a person chose and has other things in
        if (path / KEY_FILE).is_file() or part_paths(path):
            yield path


def _stored(path: Path) -> Stored:
    rows = sum(row_count(part) for part in part_paths(path))
    return Stored(path, _key(path), rows, _size(path), _used(path))


def _key(path: Path) -> StoreKey | None:
    try:
        return StoreKey.from_json((path / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _used(path: Path) -> float:
    for file in (path / USED_FILE, path):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _size(path: Path) -> int:
    total = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total

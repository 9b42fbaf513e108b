"""Folders that things are kept in: whether they can be written to, and how full they are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding, State

NAME = "folders"
LITTLE = 2 * 2**30  # bytes free; below, results and tiles may soon not fit


def folders() -> Iterator[Finding]:
    import platformdirs

    from ..inference.store.folders import cache_folder, cache_size
    from ..inference.store.limit import cache_limit
    from ..inference.store.words import size_words

    cache = cache_folder()
    held = f"{size_words(cache_size(cache))} of {size_words(cache_limit())} used"
    yield folder("cache of tiles", cache, held)
    yield folder("settings", platformdirs.user_config_path("napari-dkan"))
    yield folder("temporary files", Path(tempfile.gettempdir()))


def folder(name: str, path: Path, more: str = "") -> Finding:
    """A folder that may not be there yet; nothing is left in it.

    One that cannot be written to is a note: everything works, but nothing is kept.
    """
    from ..inference.store.words import size_words

    there = next((p for p in (path, *path.parents) if p.is_dir()), None)
    parts = [str(path)]
    if there is None:
        return Finding(NAME, name, f"{path}: cannot be made", State.note)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        said = f"{path}: cannot be written to ({error.strerror}), so nothing is kept there"
        return Finding(NAME, name, said, State.note)
    free = shutil.disk_usage(there).free
    parts += [more, f"{size_words(free)} free", "" if there == path else "not made yet"]
    state = State.note if free < LITTLE else State.ok
    return Finding(NAME, name, ", ".join(part for part in parts if part), state)

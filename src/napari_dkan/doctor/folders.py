"""Folders that things are kept in: whether they can be written to, and how full they are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .finding import CheckResult, CheckStatus

FOLDERS_SECTION = "folders"
LOW_SPACE_BYTES = 2 * 2**30  # bytes free; below, results and tiles may soon not fit


def check_folders() -> Iterator[CheckResult]:
    import platformdirs

    from ..inference.store.folders import get_cache_folder, compute_cache_size
    from ..inference.store.limit import get_cache_limit
    from ..inference.store.words import format_size

    cache = get_cache_folder()
    held = f"{format_size(compute_cache_size(cache))} of {format_size(get_cache_limit())} used"
    yield check_folder("cache of tiles", cache, held)
    yield check_folder("settings", platformdirs.user_config_path("napari-dkan"))
    yield check_folder("temporary files", Path(tempfile.gettempdir()))


def check_folder(name: str, path: Path, details: str = "") -> CheckResult:
    """A folder that may not be there yet; nothing is left in it.

    One that cannot be written to is a note: everything works, but nothing is kept.
    """
    from ..inference.store.words import format_size

    there = next((p for p in (path, *path.parents) if p.is_dir()), None)
    parts = [str(path)]
    if there is None:
        return CheckResult(FOLDERS_SECTION, name, f"{path}: cannot be made", CheckStatus.note)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        said = f"{path}: cannot be written to ({error.strerror}), so nothing is kept there"
        return CheckResult(FOLDERS_SECTION, name, said, CheckStatus.note)
    free = shutil.disk_usage(there).free
    parts += [details, f"{format_size(free)} free", "" if there == path else "not made yet"]
    state = CheckStatus.note if free < LOW_SPACE_BYTES else CheckStatus.ok
    return CheckResult(FOLDERS_SECTION, name, ", ".join(part for part in parts if part), state)

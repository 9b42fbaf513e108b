"""Check package versions, folders and the display."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from .check_result import CheckResult, CheckStatus

VERSIONS_SECTION = "versions"
# By what they do for us: the first that a report is asked for come first.
REPORTED_PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "napari", "qtpy", "vispy"),
    *("PySide6", "PySide6_Essentials", "PyQt6", "PyQt5"),
    *("zarr", "anndata", "scanpy", "tifffile", "imagecodecs", "openslide-python"),
    *("openslide-bin", "shapely", "distributed", "huggingface_hub"),
)
PACKAGE_NAME = "napari-dkan"


def check_versions() -> Iterator[CheckResult]:
    import psutil

    yield CheckResult(
        VERSIONS_SECTION,
        PACKAGE_NAME,
        _installed_version(PACKAGE_NAME) or "not installed as a package",
    )
    yield CheckResult(
        VERSIONS_SECTION, "python", f"{platform.python_version()} ({platform.machine()})"
    )
    yield CheckResult(VERSIONS_SECTION, "system", platform.platform())
    memory = psutil.virtual_memory()
    yield CheckResult(
        VERSIONS_SECTION,
        "machine",
        f"{psutil.cpu_count()} cores, {memory.total / 2**30:.1f} GiB of memory, "
        f"{memory.available / 2**30:.1f} free",
    )
    for name in REPORTED_PACKAGES:
        there = _installed_version(name)
        if there is not None:
            yield CheckResult(VERSIONS_SECTION, name, there)
    yield from check_requirements()


def check_requirements() -> Iterator[CheckResult]:
    """What the package needs and is missing or too old."""
    from packaging.requirements import Requirement

    for text in requires(PACKAGE_NAME) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = _installed_version(wanted.name)
        if there is None:
            yield CheckResult(
                VERSIONS_SECTION,
                wanted.name,
                f"missing; pip install '{wanted}'",
                CheckStatus.broken,
            )
        elif not wanted.specifier.contains(there, prereleases=True):
            said = f"{there}, but {wanted.specifier} is needed; pip install -U '{wanted}'"
            yield CheckResult(VERSIONS_SECTION, wanted.name, said, CheckStatus.broken)


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


FOLDERS_SECTION = "folders"
LOW_SPACE_BYTES = 2 * 2**30  # bytes free; below, results and tiles may soon not fit


def check_folders() -> Iterator[CheckResult]:
    import platformdirs

    from ..inference.cache.cache_directory import (
        compute_cache_size,
        format_size,
        get_cache_folder,
        get_cache_limit,
    )

    cache = get_cache_folder()
    held = f"{format_size(compute_cache_size(cache))} of {format_size(get_cache_limit())} used"
    yield check_folder("cache of tiles", cache, held)
    yield check_folder("settings", platformdirs.user_config_path("napari-dkan"))
    yield check_folder("temporary files", Path(tempfile.gettempdir()))


def check_folder(name: str, path: Path, details: str = "") -> CheckResult:
    """A folder that may not be there yet; nothing is left in it.

    One that cannot be written to is a note: everything works, but nothing is kept.
    """
    from ..inference.cache.cache_directory import format_size

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


DISPLAY_SECTION = "display"
DISPLAY_PROBE_COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "napari_dkan.viewer.widgets.gl_compat",
)  # -P: nothing of the folder
DISPLAY_PROBE_TIMEOUT_S = 60  # seconds


def check_display() -> Iterator[CheckResult]:
    if not _has_display():
        yield CheckResult(
            DISPLAY_SECTION,
            "display",
            "none here (DISPLAY is not set): the window needs one, the command line does not",
            CheckStatus.note,
        )
        return
    yield from run_display_probe(DISPLAY_PROBE_COMMAND)


def run_display_probe(command: tuple[str, ...]) -> Iterator[CheckResult]:
    """What the probe prints, one JSON object; or how it ended instead."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=DISPLAY_PROBE_TIMEOUT_S, text=True
        )
    except subprocess.TimeoutExpired:
        yield CheckResult(DISPLAY_SECTION, "OpenGL", f"no answer in {DISPLAY_PROBE_TIMEOUT_S} s; restart the X server or log in "
                      "again", CheckStatus.broken)  # fmt: skip
        return
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        yield CheckResult(DISPLAY_SECTION, "OpenGL", _describe_exit(done), CheckStatus.broken)
        return
    for name, said in told.items():
        wrong = name == "error"
        state = CheckStatus.broken if wrong else CheckStatus.ok
        yield CheckResult(DISPLAY_SECTION, "OpenGL" if wrong else name, str(said), state)


def _describe_exit(done: subprocess.CompletedProcess[str]) -> str:
    how = f"code {done.returncode}"
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that looked at it ended by {how}: {last}"


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

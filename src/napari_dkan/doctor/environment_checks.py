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
# The packages that bug reports are most often about come first.
REPORTED_PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "napari", "qtpy", "vispy"),
    *("PySide6", "PySide6_Essentials", "PyQt6", "PyQt5"),
    *("zarr", "anndata", "scanpy", "tifffile", "imagecodecs", "openslide-python"),
    *("openslide-bin", "shapely", "distributed", "huggingface_hub"),
)
PACKAGE_NAME = "napari-dkan"

FOLDERS_SECTION = "folders"
LOW_SPACE_BYTES = 2 * 2**30  # with less free space results and tiles may soon not fit

DISPLAY_SECTION = "display"
_DISPLAY_PROBE_MODULE = "napari_dkan.viewer.widgets.gl_compat"
# -P: modules in the current folder are not imported.
DISPLAY_PROBE_COMMAND = (sys.executable, "-P", "-m", _DISPLAY_PROBE_MODULE)
DISPLAY_PROBE_TIMEOUT_S = 60


def check_versions() -> Iterator[CheckResult]:
    """Report the versions of this package, Python, the system and the main dependencies."""
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
        installed = _installed_version(name)
        if installed is not None:
            yield CheckResult(VERSIONS_SECTION, name, installed)
    yield from check_requirements()


def check_requirements() -> Iterator[CheckResult]:
    """Report dependencies that are missing or too old."""
    from packaging.requirements import Requirement

    for text in requires(PACKAGE_NAME) or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, installed = requirement.name, _installed_version(requirement.name)
        if installed is None:
            message = f"missing; pip install '{requirement}'"
            yield CheckResult(VERSIONS_SECTION, name, message, CheckStatus.broken)
        elif not requirement.specifier.contains(installed, prereleases=True):
            needed = f"{requirement.specifier} is needed; pip install -U '{requirement}'"
            message = f"{installed}, but {needed}"
            yield CheckResult(VERSIONS_SECTION, name, message, CheckStatus.broken)


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_folders() -> Iterator[CheckResult]:
    """Check that the folders of cache, settings and temporary files can be written to."""
    import platformdirs

    from ..inference.cache.cache_directory import (
        compute_cache_size,
        format_size,
        get_cache_folder,
        get_cache_limit,
    )

    cache = get_cache_folder()
    usage = f"{format_size(compute_cache_size(cache))} of {format_size(get_cache_limit())} used"
    yield check_folder("cache of tiles", cache, usage)
    yield check_folder("settings", platformdirs.user_config_path("napari-dkan"))
    yield check_folder("temporary files", Path(tempfile.gettempdir()))


def check_folder(name: str, path: Path, details: str = "") -> CheckResult:
    """Check that a folder, or the parent of one that does not exist yet, can be written to.

    A folder that cannot be written to is a note: everything works, but nothing is saved there.
    """
    from ..inference.cache.cache_directory import format_size

    existing = next((p for p in (path, *path.parents) if p.is_dir()), None)
    if existing is None:
        return CheckResult(FOLDERS_SECTION, name, f"{path}: cannot be made", CheckStatus.note)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        message = f"{path}: cannot be written to ({error.strerror}), so nothing is kept there"
        return CheckResult(FOLDERS_SECTION, name, message, CheckStatus.note)
    free = shutil.disk_usage(existing).free
    not_made = "" if existing == path else "not made yet"
    parts = [str(path), details, f"{format_size(free)} free", not_made]
    status = CheckStatus.note if free < LOW_SPACE_BYTES else CheckStatus.ok
    return CheckResult(FOLDERS_SECTION, name, ", ".join(part for part in parts if part), status)


def check_display() -> Iterator[CheckResult]:
    """Check OpenGL in a child process, as a broken driver may crash."""
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
    """Yield the properties that the probe prints as one JSON object, or how it failed."""
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=DISPLAY_PROBE_TIMEOUT_S, text=True
        )
    except subprocess.TimeoutExpired:
        message = f"no answer in {DISPLAY_PROBE_TIMEOUT_S} s; restart the X server or log in again"
        yield CheckResult(DISPLAY_SECTION, "OpenGL", message, CheckStatus.broken)
        return
    try:
        properties = json.loads(process.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        yield CheckResult(DISPLAY_SECTION, "OpenGL", _describe_exit(process), CheckStatus.broken)
        return
    for name, value in properties.items():
        is_error = name == "error"
        status = CheckStatus.broken if is_error else CheckStatus.ok
        yield CheckResult(DISPLAY_SECTION, "OpenGL" if is_error else name, str(value), status)


def _describe_exit(process: subprocess.CompletedProcess[str]) -> str:
    cause = f"code {process.returncode}"
    if process.returncode < 0:
        cause = signal.Signals(-process.returncode).name
    last_line = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that looked at it ended by {cause}: {last_line}"


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

"""Versions of what the package stands on, and whether they are what it asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from .finding import CheckResult, CheckStatus

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

    yield CheckResult(VERSIONS_SECTION, PACKAGE_NAME, _installed_version(PACKAGE_NAME) or "not installed as a package")
    yield CheckResult(VERSIONS_SECTION, "python", f"{platform.python_version()} ({platform.machine()})")
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
            yield CheckResult(VERSIONS_SECTION, wanted.name, f"missing; pip install '{wanted}'", CheckStatus.broken)
        elif not wanted.specifier.contains(there, prereleases=True):
            said = f"{there}, but {wanted.specifier} is needed; pip install -U '{wanted}'"
            yield CheckResult(VERSIONS_SECTION, wanted.name, said, CheckStatus.broken)


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""Versions of what the package stands on, and whether they are what it asks for."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from .finding import Finding, State

NAME = "versions"
# By what they do for us: the first that a report is asked for come first.
SHOWN = (
    *("torch", "torchvision", "timm", "numpy", "napari", "qtpy", "vispy"),
    *("PySide6", "PySide6_Essentials", "PyQt6", "PyQt5"),
    *("zarr", "anndata", "scanpy", "tifffile", "imagecodecs", "openslide-python"),
    *("openslide-bin", "shapely", "distributed", "huggingface_hub"),
)
OWN = "napari-dkan"


def versions() -> Iterator[Finding]:
    import psutil

    yield Finding(NAME, OWN, _version(OWN) or "not installed as a package")
    yield Finding(NAME, "python", f"{platform.python_version()} ({platform.machine()})")
    yield Finding(NAME, "system", platform.platform())
    memory = psutil.virtual_memory()
    yield Finding(
        NAME,
        "machine",
        f"{psutil.cpu_count()} cores, {memory.total / 2**30:.1f} GiB of memory, "
        f"{memory.available / 2**30:.1f} free",
    )
    for name in SHOWN:
        there = _version(name)
        if there is not None:
            yield Finding(NAME, name, there)
    yield from wrong()


def wrong() -> Iterator[Finding]:
    """What the package needs and is missing or too old."""
    from packaging.requirements import Requirement

    for text in requires(OWN) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = _version(wanted.name)
        if there is None:
            yield Finding(NAME, wanted.name, f"missing; pip install '{wanted}'", State.broken)
        elif not wanted.specifier.contains(there, prereleases=True):
            said = f"{there}, but {wanted.specifier} is needed; pip install -U '{wanted}'"
            yield Finding(NAME, wanted.name, said, State.broken)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

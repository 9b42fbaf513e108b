"""The section and the bundled checkpoint that benchmarks run on: real where it is to be had."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "benchmarks"


@dataclass(frozen=True)
class Section:
    """A slide file with its pixel size, and the checkpoint for it."""

    name: str
    image: Path
    mpp: float
    checkpoint: Path


def best_section() -> Section:
    """C3 of the her2st study, else the synthetic section."""
    from napari_dkan.errors import DkanError
    from napari_dkan.expression.array_geometry import mpp_from_spots
    from napari_dkan.expression.tables.spot_files import read_spots
    from napari_dkan.samples import (
        fetch_her2st_section,
        find_bundled_checkpoint,
        get_synthetic_section,
    )
    from napari_dkan.slide import open_slide

    try:
        paths, model = fetch_her2st_section("C3"), "her2-breast"
    except DkanError as error:
        print(error)
        paths, model = get_synthetic_section(), "synthetic"
    with open_slide(paths.image) as slide:
        mpp = slide.mpp or mpp_from_spots(read_spots(paths.spots))
    return Section(paths.title or paths.name, paths.image, mpp, find_bundled_checkpoint(model))


def empty_cache(name: str) -> Path:
    """A folder in build/ for what this process keeps on disk, empty now."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["NAPARI_DKAN_CACHE"] = str(folder)
    return folder


def peak_mb() -> float:
    """The peak of this process's resident size, in MB.

    Not ``ru_maxrss`` on Linux: it begins with the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale

"""Synthetic sections on disk, in the her2st layout, kept in the user's cache."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DkanError, OutputError
from .synthetic import SIMULATION_NOTICE, SAMPLE_SEED, SyntheticSection, draw_section

DRAWING_VERSION = 5  # raise it when make_section draws something else, so that old copies are not used
TILE_PX = 512


@dataclass(frozen=True)
class SamplePaths:
    """The files of one section: root holds them in the her2st layout under this name."""

    root: Path
    name: str
    image: Path
    counts: Path
    spots: Path
    title: str = ""


def her2st_paths(root: Path, name: str, image: str, title: str = "") -> SamplePaths:
    """Where the her2st layout has a section's files."""
    return SamplePaths(
        root=root,
        name=name,
        image=root / "ST-imgs" / name[:1] / name / image,
        counts=root / "ST-cnts" / f"{name}.tsv.gz",
        spots=root / "ST-spotfiles" / f"{name}_selection.tsv",
        title=title,
    )


def sample_cache_folder() -> Path:
    """Where samples are kept between sessions."""
    import platformdirs

    return platformdirs.user_cache_path("napari-dkan") / "samples"


def get_synthetic_section(
    seed: int = SAMPLE_SEED, size_px: int = 4608, folder: Path | None = None
) -> SamplePaths:
    """The files of a synthetic section, drawn on the first call and kept.

    folder : where to keep it, the user's cache by default. Every size has a folder of its own;
    copies by an older version of the drawing are removed.

    Raises OutputError when it cannot be written.
    """
    root = (folder or sample_cache_folder()) / f"synthetic-v{DRAWING_VERSION}-{seed}-{size_px}px"
    paths = _synthetic_paths(root, f"X{seed}")
    if not all(p.is_file() for p in (paths.image, paths.counts, paths.spots)):
        for old in root.parent.glob(f"synthetic-v*-{seed}-{size_px}px"):
            shutil.rmtree(old, ignore_errors=True)
        write_her2st_section(draw_section(seed, size_px), root, paths.name)
    return paths


def write_her2st_section(section: SyntheticSection, folder: str | Path, name: str) -> SamplePaths:
    """Write a section to a new folder, all of it or nothing.

    The image is a tiled pyramidal OME-TIFF (JPEG, PhysicalSize in um); counts and spots are
    tab-separated tables as the her2st study has them. ``README.txt`` says that it is simulated.

    Raises OutputError when the folder exists and holds something, or cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; name a new folder for the synthetic section.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            made = Path(work) / "section"
            paths = _synthetic_paths(made, name)
            for path in (paths.image, paths.counts, paths.spots):
                path.parent.mkdir(parents=True)
            _write_image(section, paths.image)
            _write_tables(section, paths)
            (made / "README.txt").write_text(f"{SIMULATION_NOTICE} Seed {section.seed}.\n", encoding="utf-8")
            if folder.is_dir():
                folder.rmdir()
            os.replace(made, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder} could not be written ({reason}); choose another folder or free some space."
        ) from error
    return _synthetic_paths(folder, name)


def _synthetic_paths(root: Path, name: str) -> SamplePaths:
    if not name or not name.isalnum():
        raise DkanError(f"{name!r} cannot name a section; use letters and digits.")
    title = f"Synthetic H&E {name} (expression simulated)"
    return her2st_paths(root, name, f"{name}_synthetic.ome.tif", title)


def _write_image(section: SyntheticSection, path: Path) -> None:
    import tifffile

    levels = [section.image]
    while min(levels[-1].shape[:2]) > 2 * TILE_PX:
        levels.append(_downsample_by_two(levels[-1]))
    jpeg = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 88},
    }
    about = {
        "axes": "YXS",
        "Name": path.name.split(".")[0],
        "Description": f"{SIMULATION_NOTICE} Seed {section.seed}.",
        "PhysicalSizeX": section.mpp,
        "PhysicalSizeY": section.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, bigtiff=False, ome=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, metadata=about, **jpeg)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, metadata=None, **jpeg)


def _downsample_by_two(image: np.ndarray) -> np.ndarray:
    h, w = (n // 2 * 2 for n in image.shape[:2])
    total = np.full((h // 2, w // 2, 3), 2, np.uint16)  # 2 of 4, to round
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        total += image[row:h:2, column:w:2]
    return (total >> 2).astype(np.uint8)


def _write_tables(section: SyntheticSection, paths: SamplePaths) -> None:
    spots = section.spots
    assert spots.array is not None
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    for (x, y), (px, py) in zip(spots.array, spots.xy, strict=True):
        lines.append(f"{x}\t{y}\t{x:.3f}\t{y:.3f}\t{px:.2f}\t{py:.2f}\t1")
    paths.spots.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["\t" + "\t".join(section.symbols)]
    for spot, counts in zip(spots.names, section.counts, strict=True):
        rows.append(spot + "\t" + "\t".join(map(str, counts)))
    text = ("\n".join(rows) + "\n").encode()
    # No time stamp, so that the same section gives the same bytes.
    paths.counts.write_bytes(gzip.compress(text, mtime=0))

"""Write a synthetic section as files: a pyramidal OME-TIFF and two tables in the her2st layout."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

from napari_dkan.errors import DkanError, OutputError
from napari_dkan.samples.sample_sections import SamplePaths, synthetic_section_paths

from .draw import SIMULATION_NOTICE, SyntheticSection

TILE_PX = 512
JPEG_QUALITY = 70


def write_her2st_section(section: SyntheticSection, folder: str | Path, name: str) -> SamplePaths:
    """Write a section to a new folder, completely or not at all.

    The image is a tiled pyramidal OME-TIFF (JPEG with 4:2:0 chroma, PhysicalSize in um). Counts
    and spots are tab-separated tables in the format of the her2st study. ``README.txt`` states
    that the data are simulated. The same section gives the same bytes with the same version of
    the JPEG codec.

    Raises
    ------
    OutputError
        If the folder exists and is not empty, or cannot be written.
    DkanError
        If the name has other characters than letters and digits.
    """
    if not name or not name.isalnum():
        raise DkanError(f"{name!r} cannot name a section; use letters and digits.")
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; name a new folder for the synthetic section.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new_folder = Path(temporary) / "section"
            paths = synthetic_section_paths(new_folder, name)
            for path in (paths.image, paths.counts, paths.spots):
                path.parent.mkdir(parents=True)
            _write_image(section, paths.image)
            _write_tables(section, paths)
            (new_folder / "README.txt").write_text(
                f"{SIMULATION_NOTICE} Seed {section.seed}.\n", encoding="utf-8"
            )
            if folder.is_dir():
                folder.rmdir()
            os.replace(new_folder, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder} could not be written ({reason}); choose another folder or free some space."
        ) from error
    return synthetic_section_paths(folder, name)


def _write_image(section: SyntheticSection, path: Path) -> None:
    import tifffile

    levels = [section.image]
    while min(levels[-1].shape[:2]) > 2 * TILE_PX:
        levels.append(_downsample_by_two(levels[-1]))
    tiles = {
        "tile": (TILE_PX, TILE_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "subsampling": (2, 2),
    }
    stem = path.name.split(".")[0]
    description = f"{SIMULATION_NOTICE} Seed {section.seed}."
    metadata = {
        "axes": "YXS",
        "Name": stem,
        "Description": description,
        "PhysicalSizeX": section.mpp,
        "PhysicalSizeY": section.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        # tifffile would write a random identifier
        "UUID": uuid5(NAMESPACE_URL, f"napari-dkan/{stem}/{section.image.shape}").urn,
    }
    with tifffile.TiffWriter(path, bigtiff=False, ome=True) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **tiles)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, metadata=None, **tiles)


def _downsample_by_two(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    h, w = (n // 2 * 2 for n in image.shape[:2])
    total = np.full((h // 2, w // 2, 3), 2, np.uint16)  # 2 of 4, to round
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        total += image[row:h:2, column:w:2]
    return (total >> 2).astype(np.uint8)


def _write_tables(section: SyntheticSection, paths: SamplePaths) -> None:
    spots = section.spots
    assert spots.array_coords is not None
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    for (x, y), (px, py) in zip(spots.array_coords, spots.xy, strict=True):
        lines.append(f"{x}\t{y}\t{x:.3f}\t{y:.3f}\t{px:.2f}\t{py:.2f}\t1")
    paths.spots.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    rows = ["\t" + "\t".join(section.symbols)]
    for spot, counts in zip(spots.names, section.counts, strict=True):
        rows.append(spot + "\t" + "\t".join(map(str, counts)))
    text = ("\n".join(rows) + "\n").encode()
    # No time stamp, so that the same section gives the same bytes.
    paths.counts.write_bytes(gzip.compress(text, mtime=0))

"""A large pyramidal JPEG TIFF for benchmarks, made from a section mirrored on and on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from section import BUILD

TILE = 256
MPP = 0.5


def section_pixels() -> tuple[str, NDArray[np.uint8]]:
    """Name and pixels of section C3, or of the drawn section where the data is absent."""
    from napari_dkan.errors import DkanError
    from napari_dkan.samples import fetch_her2st_section, get_synthetic_section
    from napari_dkan.slide import open_slide

    try:
        paths = fetch_her2st_section("C3")
    except DkanError:
        paths = get_synthetic_section()
    with open_slide(paths.image) as slide:
        return paths.name, slide.read_region(0, 0, slide.width, slide.height)


def level_options(side: int, factor: int, mpp: float = MPP) -> dict[str, Any]:
    """How tifffile writes a level of `side` px, as scanners do: colour at half resolution."""
    px_per_cm = 1e4 / (mpp * factor)
    return {
        "shape": (side, side, 3),
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "subfiletype": int(factor > 1),
        "resolution": (px_per_cm, px_per_cm),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": 85},
        "subsampling": (2, 2),
    }


def pyramid_file(side: int) -> Path:
    """`side` x `side` px with levels down to 1,024 px; written once and kept in build/."""
    import tifffile
    from PIL import Image

    from napari_dkan.atomic_write import atomic_write

    name, section = section_pixels()
    path = BUILD / f"mirrored-{name}-{side}.tif"
    if path.exists():
        return path
    with atomic_write(path) as part, tifffile.TiffWriter(part, bigtiff=True) as tif:
        factor = 1
        while True:
            tif.write(
                mirrored_tiles(np.asarray(Image.fromarray(section).reduce(factor)), side // factor),
                **level_options(side // factor, factor),
            )
            if side // factor <= 1024:
                break
            factor *= 2
    return path


def repeated_file(side: int) -> Path:
    """`side` x `side` px of four sections side by side, again and again; kept in build/.

    Every tile is decoded as in any slide, but equal ones are stored once, so the file is small.
    """
    import tifffile

    from napari_dkan.atomic_write import atomic_write

    path = BUILD / f"repeated-{side}.tif"
    if path.exists():
        return path
    texture = mosaic()
    with atomic_write(path) as part:
        repeats = []
        with tifffile.TiffWriter(part, bigtiff=True) as tif:
            factor = 1
            while not repeats or 2 * side // factor > 1024:
                repeats.append(write_repeated(tif, texture, side // factor, factor))
                factor *= 2
        with tifffile.TiffFile(part, mode="r+b") as tif:
            for page, distinct in zip(tif.pages, repeats, strict=True):
                row, column = np.divmod(
                    np.arange(len(page.dataoffsets)), -(-page.imagewidth // TILE)
                )
                which = (row % distinct) * distinct + column % distinct
                for name in ("TileOffsets", "TileByteCounts"):
                    tag = page.tags[name]
                    tag.overwrite(np.asarray(tag.value)[which].tolist())
    return path


def mosaic() -> NDArray[np.uint8]:
    """The middles of sections C2 to C5, 2 x 2, or of one section where the data is absent."""
    from napari_dkan.errors import DkanError
    from napari_dkan.samples import fetch_her2st_section, get_synthetic_section
    from napari_dkan.slide import open_slide

    try:
        paths = [fetch_her2st_section(name) for name in ("C2", "C3", "C4", "C5")]
    except DkanError:
        paths = [get_synthetic_section()] * 4
    parts = []
    for each in paths:
        with open_slide(each.image) as slide:
            middle = min(slide.width, slide.height) // (8 * TILE) * 8 * TILE
            x, y = (slide.width - middle) // 2, (slide.height - middle) // 2
            parts.append(slide.read_region(x, y, middle, middle))
    least = min(len(part) for part in parts)
    a, b, c, d = (part[:least, :least] for part in parts)
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def write_repeated(tif: object, texture: NDArray[np.uint8], side: int, factor: int) -> int:
    """Write the distinct tiles of a level and gaps for the rest; tiles along a side of them."""
    from PIL import Image

    reduced = np.asarray(Image.fromarray(texture).reduce(factor))
    across, distinct = -(-side // TILE), len(reduced) // TILE
    if distinct * TILE != len(reduced) or distinct > across:  # coarse levels, in full
        distinct = across
        times = -(-across * TILE // len(reduced))
        reduced = np.tile(reduced, (times, times, 1))
    tiles = (
        reduced[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
        for y in range(distinct)
        for x in range(distinct)
    )
    gaps = (None for _ in range(across**2 - distinct**2))
    tif.write(chain(tiles, gaps), **level_options(side, factor))
    return distinct


def mirrored_tiles(section: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    """Tiles, row by row, of a picture of `side` px that repeats the section, every second time
    mirrored."""
    rows, columns = (mirror(np.arange(-(-side // TILE) * TILE), n) for n in section.shape[:2])
    for top in range(0, side, TILE):
        band = section[rows[top : top + TILE]]
        for left in range(0, side, TILE):
            yield band[:, columns[left : left + TILE]]


def mirror(index: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)

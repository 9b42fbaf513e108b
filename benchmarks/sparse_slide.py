"""A slide of 100,000 x 100,000 px in a small file: few tiles of pixels, many that point to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyramid import TILE, level_options, mirrored_tiles, section_pixels
from section import BUILD

MPP = 0.25
TISSUE = 0.25  # share of the slide, a disc in its middle
DISTINCT = 64
GLASS = 243
# Levels of at most so many tiles are written in full, with a round edge of the tissue.
WRITTEN = 1000


def sparse_file(side: int) -> Path:
    """The file in build/, with levels down to 1,024 px; written once and kept."""
    import tifffile

    from napari_dkan.atomic_write import atomic_write

    path = BUILD / f"sparse-{side}.tif"
    if path.exists():
        return path
    texture = tissue_only()
    with atomic_write(path) as part:
        factors = []
        with tifffile.TiffWriter(part, bigtiff=True) as tif:
            factor = 1
            while not factors or side // factors[-1] > 1024:
                factors.append(factor)
                write_level(tif, texture, side // factor, factor)
                factor *= 2
        with tifffile.TiffFile(part, mode="r+b") as tif:
            for page in tif.pages:
                across = -(-page.imagewidth // TILE)
                if across**2 > WRITTEN:
                    repeat(page, across)
    return path


def tissue_only() -> NDArray[np.uint8]:
    """The largest square around the innermost place of the section's tissue."""
    from PIL import Image
    from scipy import ndimage

    from napari_dkan.slide.tissue import segment_tissue

    section, factor = section_pixels()[1], 8
    mask = segment_tissue(np.asarray(Image.fromarray(section).reduce(factor)))
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    y, x = (int(at) * factor for at in np.unravel_index(depth.argmax(), depth.shape))
    half = (int(depth.max()) - 1) * factor
    return np.ascontiguousarray(section[y - half : y + half, x - half : x + half])


def write_level(tif: object, texture: NDArray[np.uint8], side: int, factor: int) -> None:
    """A level with all its tiles, or with the distinct ones only and gaps for the rest."""
    from PIL import Image

    # Four times as much detail as there would be: tissue is rough at every resolution.
    reduced = np.asarray(Image.fromarray(texture).reduce(max(factor // 4, 1)))
    across = -(-side // TILE)
    tiles = disc(reduced, side) if across**2 <= WRITTEN else few(reduced, across)
    tif.write(tiles, **level_options(side, factor, MPP))


def few(texture: NDArray[np.uint8], across: int):
    """Distinct tiles first, one of glass, then none."""
    yield from (
        tile for tile, _ in zip(mirrored_tiles(texture, TILE * 8), range(DISTINCT), strict=True)
    )
    yield np.full((TILE, TILE, 3), GLASS, np.uint8)
    yield from (None for _ in range(across**2 - DISTINCT - 1))


def disc(texture: NDArray[np.uint8], side: int):
    """Tissue within a disc, glass around it."""
    across = -(-side // TILE)
    for index, tile in enumerate(mirrored_tiles(texture, side)):
        row, column = divmod(index, across)
        y, x = np.mgrid[:TILE, :TILE] + 0.5
        inside = on_tissue((x + column * TILE) / side, (y + row * TILE) / side)
        yield np.where(inside[:, :, None], tile, np.uint8(GLASS))


def on_tissue(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For places from 0 to 1."""
    return (x - 0.5) ** 2 + (y - 0.5) ** 2 < TISSUE / np.pi


def repeat(page: object, across: int) -> None:
    """Point every tile of a page to one of its distinct ones."""
    row, column = np.divmod(np.arange(across**2), across)
    inside = on_tissue((column + 0.5) / across, (row + 0.5) / across)
    which = np.where(inside, (row * 5 + column * 3) % DISTINCT, DISTINCT)
    for name in ("TileOffsets", "TileByteCounts"):
        tag = page.tags[name]
        tag.overwrite(np.asarray(tag.value)[which].tolist())

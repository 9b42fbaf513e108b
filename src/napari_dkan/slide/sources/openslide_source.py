"""Read vendor formats with OpenSlide: NDPI, MRXS, SCN, BIF and others."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import openslide
from numpy.typing import NDArray

from ..color_conversion import convert_to_rgb8
from ..file_images import FileContents, FileImage, choose_image
from ..pixel_size import (
    PixelSizeMetadata,
    choose_pixel_size,
    pixel_size_from_objective,
    pixel_size_from_sides,
)
from ..scan_area import Box, ScanArea, read_scan_area
from .array_source import ArraySource
from .slide_source import Level, TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity, group_small_chunks

# OpenSlide's own cache only has to last while one of our tiles is decoded.
OPENSLIDE_CACHE_BYTES = 32 * 2**20

# In some formats tiles are strips of 8 px; they are read together up to this many px.
MIN_READ_PX = 128


class OpenSlideSource(TiledSource):
    """Reads along the slide's tile grid; tiles are cached as RGB, which OpenSlide does not do.

    Parameters
    ----------
    path
        The file.
    whole_glass
        Open the whole glass and not the scan area on it, which the properties
        ``openslide.bounds-*`` state. QuPath shows the scan area and counts from its corner.
    """

    def __init__(self, path: Path, whole_glass: bool = False) -> None:
        self._path = path
        self._lock = Lock()
        self._slide = self._open()
        self._downsamples = self._slide.level_downsamples
        scan, glass = read_scan_area(self._slide), self._slide.dimensions
        self._area: Box = (0, 0, *glass) if whole_glass else scan
        self.scan_area = ScanArea.on_glass(scan, *glass, whole_glass)
        self.levels = levels_from_sizes(self._level_sizes())
        self.contents = list_openslide_images(self._slide, self.levels[0], len(self.levels))
        self.pixel_size_metadata = self._read_pixel_size()
        self.icc_profile = self._read_icc_profile()
        width, height = (
            int(self._slide.properties.get(f"openslide.level[0].tile-{side}", 256))
            for side in ("width", "height")
        )
        self.chunk_size = (
            group_small_chunks(width, MIN_READ_PX),
            group_small_chunks(height, MIN_READ_PX),
        )
        # The grid of tiles stays that of the file, so that each of its tiles is decoded once.
        self._offsets = [
            (
                int(self._area[0] / factor) % self.chunk_size[0],
                int(self._area[1] / factor) % self.chunk_size[1],
            )
            for factor in self._downsamples
        ]
        self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def _level_sizes(self) -> list[tuple[int, int]]:
        """Return (width, height) of the area in each level."""
        dimensions = self._slide.level_dimensions
        if self._area[2:] == tuple(dimensions[0]):
            return list(dimensions)
        width, height = self._area[2:]
        return [
            (max(1, int(width / factor)), max(1, int(height / factor)))
            for factor in self._downsamples
        ]

    def _open(self) -> openslide.OpenSlide:
        slide = openslide.OpenSlide(str(self._path))
        slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE_BYTES))
        return slide

    def _read_pixel_size(self) -> PixelSizeMetadata:
        properties = self._slide.properties
        vendor = properties.get("openslide.vendor", "OpenSlide").capitalize()
        names = ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power")
        x, y, power = (float(value) if (value := properties.get(name)) else None for name in names)
        return choose_pixel_size(
            pixel_size_from_sides(x, y, f"{vendor} metadata"), pixel_size_from_objective(power)
        )

    def _read_icc_profile(self) -> bytes | None:
        from PIL.ImageCms import PyCMSError

        try:
            profile = self._slide.color_profile
        except (OSError, PyCMSError):
            return b"damaged"  # reported when the profile is used
        return None if profile is None else profile.tobytes()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return pixels (height, width, 3) of a region inside the level."""
        across, down = self._offsets[level]
        return super().read(level, x + across, y + down, width, height)

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Decode one tile of the grid, which begins left of and above the area."""
        size, factor = self.levels[level], self._downsamples[level]
        across, down = self._offsets[level]
        x, y = column * self.chunk_size[0] - across, row * self.chunk_size[1] - down
        pixels = min(self.chunk_size[0], size.width - x), min(self.chunk_size[1], size.height - y)
        corner = round(self._area[0] + x * factor), round(self._area[1] + y * factor)
        slide = self._slide
        try:
            region = slide.read_region(corner, level, pixels)
        except openslide.OpenSlideError:
            # After one damaged tile OpenSlide refuses every read; other tiles may be intact.
            with self._lock:
                if self._slide is slide:
                    self._slide = self._open()
            raise
        if region.getchannel("A").getextrema()[0] == 255:
            return np.asarray(region.convert("RGB"))  # four times as fast
        return convert_to_rgb8(np.asarray(region))  # parts that were not scanned are transparent

    def close(self) -> None:
        """Release the cached tiles and close the slide."""
        super().close()
        self._slide.close()


def list_openslide_images(
    slide: openslide.OpenSlide, finest: Level, n_levels: int, name: str = ""
) -> FileContents:
    """List the scan and the associated images (label, macro, thumbnail) of a slide."""
    images = [FileImage("scan", finest.width, finest.height, n_levels)]
    # Only names and sizes: the images are not decoded.
    for key in sorted(slide.associated_images):
        size = (
            slide.properties.get(f"openslide.associated.{key}.{s}") for s in ("width", "height")
        )
        width, height = (int(value or 0) for value in size)
        images.append(FileImage(key, width, height))
    index = next((i for i, image in enumerate(images) if image.name == name), 0)
    return FileContents(tuple(images), index)


def open_associated_image(path: Path, image: str | int | None) -> ArraySource | None:
    """Open a label, macro or thumbnail by name or number; None for the scan.

    Raises
    ------
    SourceError
        There is no such image.
    """
    if image is None:
        return None
    with openslide.OpenSlide(str(path)) as slide:
        (finest, *others) = levels_from_sizes(list(slide.level_dimensions))
        contents = list_openslide_images(slide, finest, 1 + len(others))
        index = choose_image(contents.images, image)
        if index == 0:
            return None
        pixels = np.asarray(slide.associated_images[contents.images[index].name].convert("RGBA"))
    source = ArraySource([pixels])
    source.contents = FileContents(contents.images, index)
    return source

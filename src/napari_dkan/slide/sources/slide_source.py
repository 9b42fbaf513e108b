"""The interface of a slide file format, and the base class of formats stored in tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..file_images import FileContents
from ..pixel_size import PixelSizeMetadata
from ..scan_area import ScanArea
from .tile_cache import TileCache, assemble_region

# The largest image, or chunk of one, that is decoded whole: 3 GiB as RGB.
MAX_IMAGE_PX = 2**30

# A slide with a longer side than this needs coarse levels.
MIN_PYRAMID_SIDE_PX = 4096


@dataclass(frozen=True)
class Level:
    """One resolution of a slide: its size in its own px, and level-0 px per px of it."""

    width: int
    height: int
    downsample: float


class SlideSource(Protocol):
    """What a file format implements to be opened as a Slide.

    Attributes
    ----------
    levels
        Finest first.
    pixel_size_metadata
        What the file states about its pixel size.
    chunk_size
        (width, height) in px that is decoded together at level 0.
    icc_profile
        The profile embedded in the file, None without one.
    contents
        The images of the file, and which of them this is.
    scan_area
        Scan area and glass, None for formats without them.
    """

    levels: tuple[Level, ...]
    pixel_size_metadata: PixelSizeMetadata
    chunk_size: tuple[int, int]
    icc_profile: bytes | None
    contents: FileContents
    scan_area: ScanArea | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return pixels (height, width, 3) of a region inside the level.

        Called from several threads at once. It may raise whatever its libraries raise: Slide
        translates it into a SlideError.
        """
        ...

    def prefetch(self) -> None:
        """Start decoding level 0 in the background, if it can only be decoded whole."""
        ...

    def close(self) -> None:
        """Close the file and release memory."""
        ...


class TiledSource(ABC):
    """Base of sources that decode a grid of tiles on demand and cache the decoded tiles.

    Subclasses set the attributes of `SlideSource` and ``cache``.
    """

    levels: tuple[Level, ...]
    pixel_size_metadata: PixelSizeMetadata
    chunk_size: tuple[int, int]
    icc_profile: bytes | None = None
    contents: FileContents = FileContents()
    scan_area: ScanArea | None = None
    cache: TileCache

    @abstractmethod
    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Decode one tile (height, width, 3), cropped at the edge of the level or not."""

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the tiles of a level in px."""
        return self.chunk_size

    def cache_of_level(self, level: int) -> TileCache:
        """Return the cache that holds the tiles of a level."""
        return self.cache

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return pixels (height, width, 3) of a region inside the level."""
        cache = self.cache_of_level(level)

        def read_cached(column: int, row: int) -> NDArray[np.uint8]:
            return cache.get((level, column, row), lambda: self.read_tile(level, column, row))

        return assemble_region(x, y, width, height, self.tile_size(level), read_cached)

    def prefetch(self) -> None:  # noqa: B027
        """Do nothing: no tile needs the whole image to be decoded."""

    def close(self) -> None:
        """Release the cached tiles."""
        self.cache.clear()


def levels_from_sizes(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Create levels from their (width, height), finest first.

    Writers round the sides of lower levels, so width0 / width is only approximately the factor
    they reduced by. Where a whole factor explains both sides it is used, so positions stay exact.
    """
    width0, height0 = sizes[0]
    levels = []
    for width, height in sizes:
        factor = round(width0 / width)
        if abs(width0 / factor - width) < 1 and abs(height0 / factor - height) < 1:
            levels.append(Level(width, height, float(factor)))
        else:
            levels.append(Level(width, height, (width0 / width + height0 / height) / 2))
    return tuple(levels)

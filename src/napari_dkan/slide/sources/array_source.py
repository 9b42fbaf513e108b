"""Read numpy, dask or zarr arrays that are already open."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..color_conversion import convert_to_rgb8
from ..pixel_size import PixelSizeMetadata
from ..reader_errors import SourceError
from .slide_source import TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity, group_small_chunks

# Chunks smaller than this many px are read together.
MIN_READ_PX = 512

# A numpy array up to this many bytes is hashed whole, in a fraction of a second; any other array
# by a grid of patches over the whole image.
MAX_FULL_HASH_BYTES = 2**30
HASH_PATCH_PX, HASH_PATCHES_PER_AXIS = 48, 8

# An image in one dask chunk is computed whole for every part that is read, so it is cached whole.
MAX_CACHED_CHUNK_BYTES = 2**30


class ArraySource(TiledSource):
    """Arrays with the conventions of napari's RGB images.

    uint8 and bool are used as they are; uint16 fills its range; floats range from 0 to 1, are
    clipped, and NaN is white. A fourth channel is opacity, composited on white.

    Parameters
    ----------
    arrays
        Levels (H, W, 3) or (H, W, 4), finest first; anything with ``shape``, ``dtype`` and slicing.
    pixel_size_metadata
        Of level 0.

    Raises
    ------
    SourceError
        The arrays are not an RGB image.
    """

    def __init__(
        self, arrays: Sequence[Any], pixel_size_metadata: PixelSizeMetadata | None = None
    ) -> None:
        if not arrays:
            raise SourceError("it has no pixels")
        for array in arrays:
            _validate_array(array)
        self._arrays = list(arrays)
        self.levels = levels_from_sizes([(int(a.shape[1]), int(a.shape[0])) for a in arrays])
        finest = self.levels[0]
        if any(lv.width > finest.width or lv.height > finest.height for lv in self.levels):
            raise SourceError("its first level is not the finest")
        self.pixel_size_metadata = pixel_size_metadata or PixelSizeMetadata()
        self._in_memory = [type(array) is np.ndarray for array in arrays]
        chunk_height, chunk_width = (_choose_read_size(arrays[0], axis) for axis in (0, 1))
        self.chunk_size = (chunk_width, chunk_height)
        capacity = max(
            choose_cache_capacity(finest.width, chunk_height),
            min(2 * chunk_width * chunk_height * 3, MAX_CACHED_CHUNK_BYTES),
        )
        self.cache = TileCache(capacity)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return pixels (height, width, 3) of a region inside the level."""
        if self._in_memory[level]:
            return _copy_as_rgb8(self._arrays[level][y : y + height, x : x + width])
        return super().read(level, x, y, width, height)

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Compute one tile of an array that is not in memory."""
        width, height = self.chunk_size
        rows = slice(row * height, (row + 1) * height)
        columns = slice(column * width, (column + 1) * width)
        return _copy_as_rgb8(self._arrays[level][rows, columns])

    def hash_content(self) -> bytes:
        """Return a hash of the pixels: of all of them where that is quick, else of a sample."""
        digest = hashlib.sha256()
        array = self._arrays[0]
        digest.update(f"{array.shape} {array.dtype}".encode())
        if self._in_memory[0] and array.nbytes <= MAX_FULL_HASH_BYTES:
            for first in range(0, array.shape[0], MIN_READ_PX):
                digest.update(np.ascontiguousarray(array[first : first + MIN_READ_PX]).data)
            return digest.digest()
        size = self.levels[0]
        for down, across in product(range(HASH_PATCHES_PER_AXIS), repeat=2):
            x = (2 * across + 1) * size.width // (2 * HASH_PATCHES_PER_AXIS)
            y = (2 * down + 1) * size.height // (2 * HASH_PATCHES_PER_AXIS)
            width, height = min(HASH_PATCH_PX, size.width - x), min(HASH_PATCH_PX, size.height - y)
            digest.update(np.ascontiguousarray(self.read(0, x, y, width, height)).data)
        return digest.digest()


def _validate_array(array: Any) -> None:
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    if len(shape) != 3 or shape[2] not in (3, 4):
        raise SourceError(f"an array of shape {shape} is not RGB; it needs (H, W, 3)")
    if min(shape[:2]) < 1:
        raise SourceError("its image is empty")
    if dtype.kind not in "bf" and dtype not in (np.uint8, np.uint16):
        raise SourceError(
            f"pixels of type {dtype.name} are not an H&E image; give RGB as uint8, uint16 or "
            "floats from 0 to 1"
        )


def _choose_read_size(array: Any, axis: int) -> int:
    """Return how many px of an axis to read at once: whole chunks, which are decoded whole."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return min(int(array.shape[axis]), 2048)
    if isinstance(chunks[axis], tuple):  # dask: the sizes of all chunks
        largest = max(chunks[axis])
        return largest if largest > MIN_READ_PX else group_small_chunks(largest, MIN_READ_PX)
    return group_small_chunks(int(chunks[axis]), MIN_READ_PX)


def _copy_as_rgb8(pixels: Any) -> NDArray[np.uint8]:
    """Convert to (H, W, 3) uint8, which never shares memory with the array."""
    pixels = np.asarray(pixels)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels.astype(np.float32), nan=1.0, posinf=1.0, neginf=0.0)
        pixels = np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
    return np.array(convert_to_rgb8(pixels), order="C")

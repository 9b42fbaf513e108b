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
from .slide_source import SourceError, levels_from_sizes
from .tile_cache import TileCache, assemble_region, choose_cache_capacity, group_small_chunks

# Chunks smaller than this many px are read together.
MIN_READ_PX = 512

# A numpy array up to this many bytes is told by all of its pixels, in a fraction of a second;
# whatever else by squares of SQUARE px, AROUND by AROUND of them over the whole image.
MAX_FULL_HASH_BYTES = 2**30
HASH_PATCH_PX, HASH_PATCHES_PER_AXIS = 48, 8

# A whole image in one dask chunk is computed as one, however often a part of it is read.
MAX_CACHED_CHUNK_BYTES = 2**30


class ArraySource:
    """Levels of (H, W, 3) or (H, W, 4), finest first, as napari shows them as RGB.

    uint8 and bool as they are; uint16 fills its range; floats are 0 to 1, what is beyond is cut
    off and NaN is white; a fourth channel is opacity over white. Anything with `shape`, `dtype`
    and slicing will do. Unreadable for arrays that are no RGB picture.
    """

    icc_profile: bytes | None = None

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
        high, wide = (_choose_read_size(arrays[0], axis) for axis in (0, 1))
        self.chunk_size = (wide, high)
        kept = max(
            choose_cache_capacity(finest.width, high),
            min(2 * wide * high * 3, MAX_CACHED_CHUNK_BYTES),
        )
        self._cache = TileCache(kept)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        if self._in_memory[level]:
            return _copy_as_rgb8(self._arrays[level][y : y + height, x : x + width])
        return assemble_region(
            x, y, width, height, self.chunk_size,
            lambda column, row: self._cache.get(
                (level, column, row), lambda: self._read_tile(level, column, row)
            ),
        )  # fmt: skip

    def _read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        wide, high = self.chunk_size
        rows = slice(row * high, (row + 1) * high)
        return _copy_as_rgb8(self._arrays[level][rows, column * wide : (column + 1) * wide])

    def hash_content(self) -> bytes:
        """A hash of its pixels, all of them where that is quick."""
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

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._cache.clear()


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
    """How many px of an axis to read at once: whole chunks, as a part of one costs all of it."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return min(int(array.shape[axis]), 2048)
    if isinstance(chunks[axis], tuple):  # dask: the sizes of all chunks
        largest = max(chunks[axis])
        return largest if largest > MIN_READ_PX else group_small_chunks(largest, MIN_READ_PX)
    return group_small_chunks(int(chunks[axis]), MIN_READ_PX)


def _copy_as_rgb8(pixels: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, never the array's own memory."""
    pixels = np.asarray(pixels)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels.astype(np.float32), nan=1.0, posinf=1.0, neginf=0.0)
        pixels = np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
    return np.array(convert_to_rgb8(pixels), order="C")

"""LRU cache of decoded tiles, and assembly of a region from tiles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock

import numpy as np
from numpy.typing import NDArray

RgbTile = NDArray[np.uint8]

# Reading patches row after row needs each tile in two rows of patches. Two rows of tiles and a
# half fit, so each tile is decoded once, within these bounds.
CACHE_BYTES_RANGE = (128 * 2**20, 256 * 2**20)

# Chunks are read whole, so that neighbours share them; larger ones in parts of this many px.
MAX_READ_PX = 2048


def choose_cache_capacity(width: int, tile_height: int) -> int:
    """Return the capacity in bytes for a level of `width` px in tiles of `tile_height` px."""
    return min(max(CACHE_BYTES_RANGE[0], 5 * width * tile_height * 3 // 2), CACHE_BYTES_RANGE[1])


class TileCache:
    """Cache of the most recently used tiles, up to `capacity` bytes.

    A tile that several threads request at once is decoded once; the others wait for it. The
    newest tile always stays, even one larger than the capacity (a slide in one strip).
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._lock = Lock()
        self._tiles: OrderedDict[Hashable, RgbTile] = OrderedDict()
        self._pending: dict[Hashable, Future[RgbTile]] = {}

    def get(self, key: Hashable, decode: Callable[[], RgbTile]) -> RgbTile:
        """Return the tile of `key`, decoded now if it is not cached.

        Errors of `decode` are raised and not cached.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            future = self._pending.get(key)
            is_first_request = future is None
            if future is None:
                future = self._pending[key] = Future()
        if not is_first_request:
            return future.result()
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            self._tiles[key] = tile
            self._size += tile.nbytes
            while self._size > self._capacity and len(self._tiles) > 1:
                self._size -= self._tiles.popitem(last=False)[1].nbytes
        future.set_result(tile)
        return tile

    @property
    def nbytes(self) -> int:
        """Bytes of the cached tiles."""
        return self._size

    def clear(self) -> None:
        """Remove all tiles."""
        with self._lock:
            self._tiles.clear()
            self._size = 0


def group_small_chunks(chunk: int, min_px: int) -> int:
    """Return how many px of an axis to read at once: several small chunks together."""
    return min(chunk * max(1, min_px // chunk), MAX_READ_PX)


def assemble_region(
    x: int,
    y: int,
    width: int,
    height: int,
    chunk_size: tuple[int, int],
    read_tile: Callable[[int, int], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """Assemble the region (height, width, 3) from a grid of chunks of (width, height) px.

    ``read_tile(column, row)`` returns the pixels of one chunk, which may be cropped at the edge
    of the level but must cover its part of the region.
    """
    out = np.empty((height, width, 3), np.uint8)
    chunk_width, chunk_height = chunk_size
    for row in range(y // chunk_height, (y + height - 1) // chunk_height + 1):
        y0 = row * chunk_height
        top, bottom = max(y, y0), min(y + height, y0 + chunk_height)
        for column in range(x // chunk_width, (x + width - 1) // chunk_width + 1):
            x0 = column * chunk_width
            left, right = max(x, x0), min(x + width, x0 + chunk_width)
            tile = read_tile(column, row)[top - y0 : bottom - y0, left - x0 : right - x0]
            out[top - y : bottom - y, left - x : right - x] = tile
    return out

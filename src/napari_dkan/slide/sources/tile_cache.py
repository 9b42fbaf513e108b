"""LRU cache of decoded tiles, and assembly of a region from tiles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock

import numpy as np
from numpy.typing import NDArray

RgbTile = NDArray[np.uint8]

# What is read row after row meets a tile in two rows of squares: two rows of tiles and some
# more stay, so that each is decoded once, within these bounds.
CACHE_BYTES_RANGE = (128 * 2**20, 256 * 2**20)


def choose_cache_capacity(width: int, tile_height: int) -> int:
    """Capacity for a level of `width` px in tiles of `tile_height` px."""
    return min(max(CACHE_BYTES_RANGE[0], 5 * width * tile_height * 3 // 2), CACHE_BYTES_RANGE[1])


class TileCache:
    """Least recently used tiles up to `capacity` bytes.

    A tile that several threads ask for at once is made once: the others wait for it. The
    newest tile always stays, even one larger than the capacity (a slide in one strip).
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._lock = Lock()
        self._tiles: OrderedDict[Hashable, RgbTile] = OrderedDict()
        self._pending: dict[Hashable, Future[RgbTile]] = {}

    def get(self, key: Hashable, decode: Callable[[], RgbTile]) -> RgbTile:
        """The tile of `key`, made by `make` when it is not here; what make raises is raised."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            future = self._pending.get(key)
            mine = future is None
            if future is None:
                future = self._pending[key] = Future()
        if not mine:
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
        return self._size

    def clear(self) -> None:
        with self._lock:
            self._tiles.clear()
            self._size = 0


# Chunks are read whole, so that neighbours share them, but larger ones in parts of this many px.
MAX_READ_PX = 2048


def group_small_chunks(chunk: int, min_px: int) -> int:
    """How many px of an axis to read at once, from its chunks: small ones in groups."""
    return min(chunk * max(1, min_px // chunk), MAX_READ_PX)


def assemble_region(
    x: int,
    y: int,
    width: int,
    height: int,
    chunk_size: tuple[int, int],
    read_tile: Callable[[int, int], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """The region (height, width, 3) from a grid of chunks of (width, height) px.

    tile(column, row) gives the pixels of one chunk, which may be cut at the level's edge but
    must cover the part of the region that lies in it.
    """
    out = np.empty((height, width, 3), np.uint8)
    wide, high = chunk_size
    for row in range(y // high, (y + height - 1) // high + 1):
        top, bottom = max(y, row * high), min(y + height, (row + 1) * high)
        for column in range(x // wide, (x + width - 1) // wide + 1):
            left, right = max(x, column * wide), min(x + width, (column + 1) * wide)
            out[top - y : bottom - y, left - x : right - x] = read_tile(column, row)[
                top - row * high : bottom - row * high, left - column * wide : right - column * wide
            ]
    return out

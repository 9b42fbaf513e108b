"""Decoded tiles that were just used, shared by all reading threads."""

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

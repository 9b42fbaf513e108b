"""Read patches in threads, in the order of the file, while the network computes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DamagedTileError
from ..cache.keyed_array import pack_keys
from ..device import reserve_cpu_core
from ..prediction_progress import StageTimer
from .patch_geometry import PatchKeys, PatchReader, centers_from_keys, split_into_tiles

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")

PATCHES_PER_TASK = 8  # patches in a row share tiles of the file
MAX_READER_THREADS = 8


@dataclass(frozen=True)
class PatchPixels:
    """Patches (N, px, px, 3) uint8, and the mask (N,) of those that could not be read."""

    tiles: NDArray[np.uint8]
    damaged_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class PatchBlock:
    """A block of grid_size x grid_size touching patches that is read at once.

    Attributes
    ----------
    cell_indices : ndarray
        (M,) requested cells of the grid, row-major.
    request_rows : ndarray
        (M,) rows of the request that they belong to.
    """

    center_key: PatchKeys
    grid_size: int
    cell_indices: NDArray[np.int64]
    request_rows: NDArray[np.int64]


class PatchRequest:
    """Patches (N, 2) that are being read; `result` waits for them."""

    def __init__(
        self,
        keys: PatchKeys,
        px: int,
        tasks: list[tuple[NDArray[Any], Future[PatchPixels]]],
        stage_timer: StageTimer,
    ) -> None:
        self.keys, self._px, self._tasks, self._stage_timer = keys, px, tasks, stage_timer
        self._pixels: PatchPixels | None = None

    def result(self) -> PatchPixels:
        """Pixels in the order of the keys.

        Raises
        ------
        SlideError
            When the slide is gone.
        """
        if self._pixels is None:
            tiles = np.zeros((len(self.keys), self._px, self._px, 3), np.uint8)
            damaged = np.zeros(len(self.keys), bool)
            with self._stage_timer("wait", len(self.keys)):
                wait([part for _, part in self._tasks])
            for rows, part in self._tasks:
                pixels = part.result()
                tiles[rows], damaged[rows] = pixels.tiles, pixels.damaged_mask
            self._pixels = PatchPixels(tiles, damaged)
        return self._pixels

    def subset(self, keys: PatchKeys) -> PatchRequestSubset:
        """Select patches (M, 2) in the order of these keys."""
        return PatchRequestSubset(self, keys)


@dataclass(frozen=True)
class PatchRequestSubset:
    """Some patches of a request."""

    request: PatchRequest
    keys: PatchKeys

    def result(self) -> PatchPixels:
        """Pixels in the order of the keys, as `PatchRequest.result`."""
        row_by_key = {key: row for row, key in enumerate(pack_keys(self.request.keys))}
        rows = np.array([row_by_key[key] for key in pack_keys(self.keys)], np.int64)
        pixels = self.request.result()
        return PatchPixels(pixels.tiles[rows], pixels.damaged_mask[rows])


class PatchLoader:
    """Read patches of ``side`` level-0 px in a thread pool."""

    def __init__(
        self, pool: ThreadPoolExecutor, reader: PatchReader, side: float, stage_timer: StageTimer
    ):
        self._pool, self._reader, self._side, self._stage_timer = pool, reader, side, stage_timer

    def request(self, keys: PatchKeys, px: int, blocks: Sequence[PatchBlock] = ()) -> PatchRequest:
        """Start reading patches (N, 2), resampled to px x px; those of a block at once."""
        is_single = np.ones(len(keys), bool)
        tasks = []
        for block in blocks:
            is_single[block.request_rows] = False
            tasks.append((block.request_rows, self._pool.submit(self._read_block, keys, px, block)))
        rows = np.flatnonzero(is_single)
        order = rows[np.lexsort((keys[rows, 0], keys[rows, 1]))]
        chunks = [order[i : i + PATCHES_PER_TASK] for i in range(0, len(order), PATCHES_PER_TASK)]
        tasks += [(c, self._pool.submit(self._read_patches, keys[c], px)) for c in chunks]
        return PatchRequest(keys, px, tasks, self._stage_timer)

    def submit(self, compute: Callable[[InputT], ResultT], argument: InputT) -> Future[ResultT]:
        """Compute something in a reading thread."""
        return self._pool.submit(compute, argument)

    def _read_block(self, keys: PatchKeys, px: int, block: PatchBlock) -> PatchPixels:
        """Read and resample a block once: Python code of 25 reads would delay the network."""
        x, y = centers_from_keys(block.center_key).tolist()
        n, resizing = block.grid_size, list[float]()
        start = time.perf_counter()
        try:
            pixels = self._reader.read_patch(x, y, self._side * n, px * n, resizing.append)
        except DamagedTileError:
            return self._read_patches(keys[block.request_rows], px)
        tiles = split_into_tiles(pixels, n)
        resized, count = sum(resizing), len(block.request_rows)
        self._stage_timer.add("read", time.perf_counter() - start - resized, count)
        self._stage_timer.add("resize", resized, count)
        return PatchPixels(tiles[block.cell_indices], np.zeros(count, bool))

    def _read_patches(self, keys: PatchKeys, px: int) -> PatchPixels:
        tiles = np.zeros((len(keys), px, px, 3), np.uint8)
        damaged = np.zeros(len(keys), bool)
        resizing: list[float] = []
        start = time.perf_counter()
        for i, (x, y) in enumerate(centers_from_keys(keys).tolist()):
            try:
                tiles[i] = self._reader.read_patch(x, y, self._side, px, resizing.append)
            except DamagedTileError:
                damaged[i] = True
        resized = sum(resizing)
        self._stage_timer.add("read", time.perf_counter() - start - resized, len(keys))
        self._stage_timer.add("resize", resized, len(resizing))
        return PatchPixels(tiles, damaged)


@contextmanager
def open_patch_loader(
    reader: PatchReader, side: float, stage_timer: StageTimer
) -> Iterator[PatchLoader]:
    """Open a loader for one job; reads that did not start when it ends are dropped."""
    threads = min(MAX_READER_THREADS, max(1, (os.cpu_count() or 2) - 1))
    pool = ThreadPoolExecutor(threads, "dkan-read", initializer=reserve_cpu_core)
    try:
        yield PatchLoader(pool, reader, side, stage_timer)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""Read patches in threads, ahead of the network, in file order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DamagedTileError
from ..cache.keyed_array import pack_keys
from ..device import reserve_cpu_core
from ..prediction_progress import StageTimer
from .patch_geometry import PatchKeys, PatchReader, centers_from_keys

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")

PATCHES_PER_TASK = 8  # patches a thread reads at one go; a row of them shares tiles of the file
MAX_READER_THREADS = 8


@dataclass(frozen=True)
class PatchPixels:
    """What was read: tiles (N, px, px, 3) uint8, and damaged (N,) where nothing could be."""

    tiles: NDArray[np.uint8]
    damaged_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class PatchBlock:
    """Patches that touch, grid x grid of them around one position.

    cells : (M,) which of the grid's cells, row-major, are wanted. rows : (M,) of a reading.
    """

    center_key: PatchKeys
    grid_size: int
    cell_indices: NDArray[np.int64]
    request_rows: NDArray[np.int64]


class PatchRequest:
    """Patches (N, 2) on their way; `pixels` waits for them."""

    def __init__(
        self, keys: PatchKeys, px: int, tasks: list[tuple[NDArray, Future[PatchPixels]]]
    ) -> None:
        self.keys, self._px, self._tasks = keys, px, tasks
        self._pixels: PatchPixels | None = None

    def result(self) -> PatchPixels:
        """In the order they were asked for. Raises SlideError when the slide is gone."""
        if self._pixels is None:
            tiles = np.zeros((len(self.keys), self._px, self._px, 3), np.uint8)
            damaged = np.zeros(len(self.keys), bool)
            for rows, part in self._tasks:
                found = part.result()
                tiles[rows], damaged[rows] = found.tiles, found.damaged_mask
            self._pixels = PatchPixels(tiles, damaged)
        return self._pixels

    def subset(self, keys: PatchKeys) -> PatchRequestSubset:
        """Some of the patches (M, 2), in an order of their own."""
        return PatchRequestSubset(self, keys)


@dataclass(frozen=True)
class PatchRequestSubset:
    """Some patches of a reading."""

    request: PatchRequest
    keys: PatchKeys

    def result(self) -> PatchPixels:
        row_of = {key: row for row, key in enumerate(pack_keys(self.request.keys))}
        rows = np.array([row_of[key] for key in pack_keys(self.keys)], np.int64)
        found = self.request.result()
        return PatchPixels(found.tiles[rows], found.damaged_mask[rows])


class PatchLoader:
    """Threads that read patches of ``side`` level-0 px."""

    def __init__(
        self, pool: ThreadPoolExecutor, reader: PatchReader, side: float, stage_timer: StageTimer
    ):
        self._pool, self._reader, self._side, self._stage_timer = pool, reader, side, stage_timer

    def request(self, keys: PatchKeys, px: int, blocks: Sequence[PatchBlock] = ()) -> PatchRequest:
        """Start reading patches (N, 2), resampled to px; those of a window at one go."""
        alone = np.ones(len(keys), bool)
        parts = []
        for window in blocks:
            alone[window.request_rows] = False
            parts.append(
                (window.request_rows, self._pool.submit(self._read_block, keys, px, window))
            )
        rows = np.flatnonzero(alone)
        order = rows[np.lexsort((keys[rows, 0], keys[rows, 1]))]
        chunks = [order[i : i + PATCHES_PER_TASK] for i in range(0, len(order), PATCHES_PER_TASK)]
        parts += [(c, self._pool.submit(self._read_patches, keys[c], px)) for c in chunks]
        return PatchRequest(keys, px, parts)

    def submit(self, compute: Callable[[InputT], ResultT], argument: InputT) -> Future[ResultT]:
        """Let a thread that may be idle compute something."""
        return self._pool.submit(compute, argument)

    def _read_block(self, keys: PatchKeys, px: int, block: PatchBlock) -> PatchPixels:
        """One read and one resampling where there would be 25, each with its share of Python,
        for which the network's thread would have to wait."""
        x, y = centers_from_keys(block.center_key).tolist()
        n, resizing = block.grid_size, list[float]()
        start = time.perf_counter()
        try:
            pixels = self._reader.read_patch(x, y, self._side * n, px * n, resizing.append)
        except DamagedTileError:
            return self._read_patches(keys[block.request_rows], px)
        tiles = pixels.reshape(n, px, n, px, 3).swapaxes(1, 2).reshape(n * n, px, px, 3)
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
    """Reading threads for one job; what was not started when it ends is dropped."""
    threads = min(MAX_READER_THREADS, max(1, (os.cpu_count() or 2) - 1))
    pool = ThreadPoolExecutor(threads, "dkan-read", initializer=reserve_cpu_core)
    try:
        yield PatchLoader(pool, reader, side, stage_timer)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""Reading patches: in threads, ahead of the network, in the order they lie in the file."""

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

from ..errors import DamagedTile
from .device import leave_a_core
from .patches import Keys, Squares, centres_of
from .rows import packed
from .timing import Stages

Given = TypeVar("Given")
Made = TypeVar("Made")

CHUNK = 8  # patches a thread reads at one go; a row of them shares tiles of the file
MOST_THREADS = 8


@dataclass(frozen=True)
class Pixels:
    """What was read: tiles (N, px, px, 3) uint8, and damaged (N,) where nothing could be."""

    tiles: NDArray[np.uint8]
    damaged: NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """Patches that touch, grid x grid of them around one position.

    cells : (M,) which of the grid's cells, row-major, are wanted. rows : (M,) of a reading.
    """

    centre: Keys
    grid: int
    cells: NDArray[np.int64]
    rows: NDArray[np.int64]


class Reading:
    """Patches (N, 2) on their way; `pixels` waits for them."""

    def __init__(self, keys: Keys, px: int, parts: list[tuple[NDArray, Future[Pixels]]]) -> None:
        self.keys, self._px, self._parts = keys, px, parts
        self._pixels: Pixels | None = None

    def pixels(self) -> Pixels:
        """In the order they were asked for. Raises SlideError when the slide is gone."""
        if self._pixels is None:
            tiles = np.zeros((len(self.keys), self._px, self._px, 3), np.uint8)
            damaged = np.zeros(len(self.keys), bool)
            for rows, part in self._parts:
                found = part.result()
                tiles[rows], damaged[rows] = found.tiles, found.damaged
            self._pixels = Pixels(tiles, damaged)
        return self._pixels

    def part(self, keys: Keys) -> Part:
        """Some of the patches (M, 2), in an order of their own."""
        return Part(self, keys)


@dataclass(frozen=True)
class Part:
    """Some patches of a reading."""

    whole: Reading
    keys: Keys

    def pixels(self) -> Pixels:
        row_of = {key: row for row, key in enumerate(packed(self.whole.keys))}
        rows = np.array([row_of[key] for key in packed(self.keys)], np.int64)
        found = self.whole.pixels()
        return Pixels(found.tiles[rows], found.damaged[rows])


class Readers:
    """Threads that read patches of ``side`` level-0 px."""

    def __init__(self, pool: ThreadPoolExecutor, slide: Squares, side: float, stages: Stages):
        self._pool, self._slide, self._side, self._stages = pool, slide, side, stages

    def ask(self, keys: Keys, px: int, windows: Sequence[Window] = ()) -> Reading:
        """Start reading patches (N, 2), resampled to px; those of a window at one go."""
        alone = np.ones(len(keys), bool)
        parts = []
        for window in windows:
            alone[window.rows] = False
            parts.append((window.rows, self._pool.submit(self._read_window, keys, px, window)))
        rows = np.flatnonzero(alone)
        order = rows[np.lexsort((keys[rows, 0], keys[rows, 1]))]
        chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]
        parts += [(c, self._pool.submit(self._read, keys[c], px)) for c in chunks]
        return Reading(keys, px, parts)

    def submit(self, compute: Callable[[Given], Made], given: Given) -> Future[Made]:
        """Let a thread that may be idle compute something."""
        return self._pool.submit(compute, given)

    def _read_window(self, keys: Keys, px: int, window: Window) -> Pixels:
        """One read and one resampling where there would be 25, each with its share of Python,
        for which the network's thread would have to wait."""
        x, y = centres_of(window.centre).tolist()
        n, resizing = window.grid, list[float]()
        start = time.perf_counter()
        try:
            pixels = self._slide.read_square(x, y, self._side * n, px * n, resizing.append)
        except DamagedTile:
            return self._read(keys[window.rows], px)
        tiles = pixels.reshape(n, px, n, px, 3).swapaxes(1, 2).reshape(n * n, px, px, 3)
        resized, count = sum(resizing), len(window.rows)
        self._stages.add("read", time.perf_counter() - start - resized, count)
        self._stages.add("resize", resized, count)
        return Pixels(tiles[window.cells], np.zeros(count, bool))

    def _read(self, keys: Keys, px: int) -> Pixels:
        tiles = np.zeros((len(keys), px, px, 3), np.uint8)
        damaged = np.zeros(len(keys), bool)
        resizing: list[float] = []
        start = time.perf_counter()
        for i, (x, y) in enumerate(centres_of(keys).tolist()):
            try:
                tiles[i] = self._slide.read_square(x, y, self._side, px, resizing.append)
            except DamagedTile:
                damaged[i] = True
        resized = sum(resizing)
        self._stages.add("read", time.perf_counter() - start - resized, len(keys))
        self._stages.add("resize", resized, len(resizing))
        return Pixels(tiles, damaged)


@contextmanager
def readers(slide: Squares, side: float, stages: Stages) -> Iterator[Readers]:
    """Reading threads for one job; what was not started when it ends is dropped."""
    threads = min(MOST_THREADS, max(1, (os.cpu_count() or 2) - 1))
    pool = ThreadPoolExecutor(threads, "dkan-read", initializer=leave_a_core)
    try:
        yield Readers(pool, slide, side, stages)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""The slide context: the tiles that the global encoder sees around what is predicted.

The encoder was trained on the spots of a whole capture area. A job on a grid, and every
click, sees the tissue tiles of a grid inside one capture-area window; spots with array
coordinates are their own context.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ..spatial.grid import cells_in_box
from .features import TileFeatures
from .job import Update
from .target import Kind, Target

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import DKAN

CAPTURE_UM = 6_600.0  # side of the array the published networks were trained on (33 x 200 um)
NO_CELLS = np.empty((0, 2), np.int64)

Bounds = tuple[float, float, float, float]

# (rows of the target (B,), features of their surroundings (B, K, d)) ->
# (their global tokens (B, d), the surroundings in the light of the slide (B, K, d))
Seen = Callable[[NDArray[np.int64], "Tensor"], tuple["Tensor", "Tensor"]]


class SlideContext:
    """Gives the spots of a target their global tokens.

    tissue : geometry in level-0 px that makes up the context.
    pitch : level-0 px between the spots the network was trained on.
    capture : side of the capture area in level-0 px.
    size : (width, height) of the slide in level-0 px.
    """

    def __init__(
        self,
        network: DKAN,
        features: TileFeatures,
        tissue: BaseGeometry,
        pitch: float,
        capture: float,
        size: tuple[int, int],
    ) -> None:
        self._network, self._features = network, features
        self.tissue = tissue
        self._pitch, self._capture, self._size = pitch, capture, size

    def of(self, target: Target) -> Generator[Update, None, Seen]:
        """Encode what the target's spots see; returns how its rows are seen in its light."""
        if target.kind is Kind.POINTS:
            return (yield from self._of_points(target.spots.xy))
        if target.kind is Kind.ARRAY:
            cells = target.spots.array
            assert cells is not None
            features = yield from self._features.at(target.spots.xy)
            index = np.arange(len(cells))
        else:
            grid = target.grid
            assert grid is not None
            cells = self._cells(grid.centres, grid.pitch, grid.cells)
            features = yield from self._features.of_cells(grid.pitch, cells)
            row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
            index = np.array([row_of[int(x), int(y)] for x, y in grid.cells])
        tokens = self._global(features, cells)

        def seen(rows: NDArray[np.int64], near: Tensor) -> tuple[Tensor, Tensor]:
            return tokens[index[rows]], self._network.on_slide(near, features)

        return seen

    def _of_points(self, xy: NDArray[np.float64]) -> Generator[Update, None, Seen]:
        """Each point takes the place of its nearest cell, whatever other points there are."""
        nearest = np.floor(xy / self._pitch).astype(np.int64)
        windows = [self._window(point[None]) for point in xy]
        contexts = {}
        for point, window in zip(xy, windows, strict=True):
            if window not in contexts:
                cells = self._cells(point[None], self._pitch, NO_CELLS)
                contexts[window] = (
                    cells,
                    (yield from self._features.of_cells(self._pitch, cells)),
                )

        def one(row: int, near: Tensor) -> tuple[Tensor, Tensor]:
            import torch

            cells, features = contexts[windows[row]]
            others = (cells != nearest[row]).any(axis=1)
            cells = np.concatenate([cells[others], nearest[row][None]])
            own = near[len(near) // 2][None]
            features = torch.cat([features[torch.from_numpy(others)], own])
            return self._global(features, cells)[-1], self._network.on_slide(near, features)

        def seen(rows: NDArray[np.int64], near: Tensor) -> tuple[Tensor, Tensor]:
            import torch

            each = [one(r, n) for r, n in zip(rows, near, strict=True)]
            tokens, near_on_slide = zip(*each, strict=True)
            return torch.stack(tokens), torch.stack(near_on_slide)

        return seen

    def _window(self, xy: NDArray[np.float64]) -> Bounds:
        bounds = (*xy.min(axis=0), *xy.max(axis=0))
        return capture_window(bounds, self._capture, *self._size)

    def _cells(
        self, xy: NDArray[np.float64], pitch: float, extra: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """(M, 2) tissue cells in the window around ``xy`` and ``extra``; unique, sorted."""
        cells = cells_in_box(self._window(xy), pitch, *self._size)
        x, y = ((cells + 0.5) * pitch).T
        return np.unique(np.concatenate([cells[contains_xy(self.tissue, x, y)], extra]), axis=0)

    def _global(self, features: Tensor, cells: NDArray[np.int64]) -> Tensor:
        import torch

        with torch.inference_mode():
            positions = torch.as_tensor(cells, device=features.device)
            return self._network.global_tokens(features, positions)


def capture_window(bounds: Bounds, side: float, width: int, height: int) -> Bounds:
    """Bounds grown to at least ``side`` (level-0 px) and kept on the slide.

    The window is moved, not cut, at the slide's edge: a slide no larger than a capture
    area always gives the same window, so a click and a map agree.
    """
    x0, x1 = _grow(bounds[0], bounds[2], side, width)
    y0, y1 = _grow(bounds[1], bounds[3], side, height)
    return x0, y0, x1, y1


def _grow(low: float, high: float, side: float, limit: float) -> tuple[float, float]:
    side = max(side, high - low)
    if side >= limit:
        return 0.0, float(limit)
    start = min(max((low + high - side) / 2, 0.0), limit - side)
    return start, start + side

"""Context windows: the tissue tiles around a spot that the global encoder takes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ..spatial.tile_grid import TileGrid, cells_in_box
from .patch_features.feature_cache import PatchFeatureCache
from .patch_features.patch_geometry import Level0Bounds, keys_from_centers
from .patch_features.patch_loader import PatchLoader
from .prediction_progress import PredictionUpdate
from .target import Target, TargetKind

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import ExpressionNetwork
    from .patch_features.precomputed_features import PrecomputedFeatures


CAPTURE_AREA_UM = 6_600.0  # side of the published networks' training arrays (33 x 200 um)
MIN_WINDOW_OVERLAP = 0.5  # of adjacent windows: every tile is away from the edge of its window
FEATURE_FILE_PITCH = 0.0  # the pitch in the cache keys of feature files' windows
MAX_CACHED_WINDOWS = 12  # at most a few MB each

CellIndex = tuple[int, int]


@dataclass(frozen=True)
class ContextWindowLayout:
    """Square windows of ``side`` level-0 px, evenly spaced over a slide of width x height px.

    A slide that is not larger than a window has one window.
    """

    side: float
    width: int
    height: int

    def find_nearest_windows(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N, 2) column and row of the window whose center is nearest to each point (N, 2)."""
        columns = [
            self._find_nearest_index(xy[:, i], limit) for i, limit in enumerate(self._slide_size)
        ]
        return np.stack(columns, axis=1)

    def get_bounds(self, column: int, row: int) -> Level0Bounds:
        """Bounds of a window, clipped to the slide."""
        low = [
            i * self._compute_step(limit)
            for i, limit in zip((column, row), self._slide_size, strict=True)
        ]
        high = [min(a + self.side, limit) for a, limit in zip(low, self._slide_size, strict=True)]
        return low[0], low[1], high[0], high[1]

    @property
    def _slide_size(self) -> tuple[int, int]:
        return self.width, self.height

    def _count_windows(self, limit: int) -> int:
        if self.side >= limit:
            return 1
        return math.ceil((limit - self.side) / (self.side * (1 - MIN_WINDOW_OVERLAP))) + 1

    def _compute_step(self, limit: int) -> float:
        count = self._count_windows(limit)
        return 0.0 if count == 1 else (limit - self.side) / (count - 1)

    def _find_nearest_index(self, x: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
        step, count = self._compute_step(limit), self._count_windows(limit)
        if count == 1:
            return np.zeros(len(x), np.int64)
        return np.rint((x - self.side / 2) / step).clip(0, count - 1).astype(np.int64)


@dataclass(frozen=True)
class ContextWindow:
    """The M tiles of a window.

    Attributes
    ----------
    cells : ndarray
        (M, 2).
    features : Tensor
        (M, d).
    global_tokens : Tensor
        (M, D) tokens of the tiles, each in the context of all.
    row_by_cell : dict
        Row of each cell.
    is_complete : bool
        False where a damaged tile is missing.
    """

    cells: NDArray[np.int64]
    features: Tensor
    global_tokens: Tensor
    row_by_cell: dict[CellIndex, int]
    is_complete: bool


class GlobalContext:
    """Compute the context windows of targets and the global tokens of their spots.

    Parameters
    ----------
    tissue : BaseGeometry
        Geometry in level-0 px whose tiles are the context.
    pitch : float
        Distance in level-0 px of the spots that the network was trained on.
    window_layout : ContextWindowLayout
        Windows of the size of a capture area.
    precomputed_features : PrecomputedFeatures, optional
        Features of a file, whose tiles are the context of targets of these tiles.
    """

    def __init__(
        self,
        network: ExpressionNetwork,
        features: PatchFeatureCache,
        tissue: BaseGeometry,
        pitch: float,
        window_layout: ContextWindowLayout,
        precomputed_features: PrecomputedFeatures | None = None,
    ) -> None:
        self._network, self._features = network, features
        self._tissue, self._precomputed_features = tissue, precomputed_features
        self.pitch, self.window_layout = pitch, window_layout
        self._cached_windows: OrderedDict[tuple[float, CellIndex], ContextWindow] = OrderedDict()

    @property
    def tissue(self) -> BaseGeometry:
        """Geometry in level-0 px; another one clears the cache."""
        return self._tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        if geometry is not self._tissue:
            self._tissue = geometry
            self.clear_cache()

    def clear_cache(self) -> None:
        """Drop all windows."""
        self._cached_windows.clear()

    def find_window_indices(self, target: Target) -> NDArray[np.int64]:
        """(N, 2) window of each row of the target; an array has one window."""
        if target.kind is TargetKind.ARRAY:
            return np.zeros((len(target), 2), np.int64)
        return self.window_layout.find_nearest_windows(target.spots.xy)

    def compute_window(
        self, target: Target, rows: NDArray[np.int64], window_index: CellIndex, loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        """Compute the window of some rows of a target; features that are not cached are encoded.

        Tiles of a grid that are off the tissue are added to the window of their rows.
        """
        if target.kind is TargetKind.ARRAY:
            cells = target.spots.array_coords
            assert cells is not None
            return (yield from self._encode_window(target.spots.xy, cells, loader))
        if target.kind is TargetKind.TILES:
            return (yield from self._compute_feature_file_window(window_index, loader))
        grid = target.grid
        pitch = self.pitch if grid is None else grid.pitch
        key = (pitch, window_index)
        off_tissue = np.empty((0, 2), np.int64)
        if grid is not None:
            off_tissue = grid.cells[rows[~contains_xy(self._tissue, *grid.centres[rows].T)]]
        if not len(off_tissue) and key in self._cached_windows:
            self._cached_windows.move_to_end(key)
            return self._cached_windows[key]
        tissue_cells = self._find_tissue_cells(window_index, pitch)
        cells = np.unique(np.concatenate([tissue_cells, off_tissue]), axis=0)
        window = yield from self._encode_window(TileGrid(pitch, 0.0, cells).centres, cells, loader)
        if not len(off_tissue) and window.is_complete:
            self._cache_window(key, window)
        return window

    def _compute_feature_file_window(
        self, window_index: CellIndex, loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        assert self._precomputed_features is not None
        key = (FEATURE_FILE_PITCH, window_index)
        if key not in self._cached_windows:
            bounds = self.window_layout.get_bounds(*window_index)
            xy, cells = self._precomputed_features.select_tiles(bounds)
            window = yield from self._encode_window(xy, cells, loader)
            self._cache_window(key, window)
        return self._cached_windows[key]

    def _cache_window(self, key: tuple[float, CellIndex], context_window: ContextWindow) -> None:
        self._cached_windows[key] = context_window
        while len(self._cached_windows) > MAX_CACHED_WINDOWS:
            self._cached_windows.popitem(last=False)

    def select_global_tokens(
        self,
        target: Target,
        rows: NDArray[np.int64],
        context_window: ContextWindow,
        center_features: Tensor,
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """Select the global tokens of rows of the target.

        A point replaces its nearest cell, independently of other points.

        Parameters
        ----------
        center_features : Tensor
            (B, d) features of the rows' own patches.

        Returns
        -------
        tuple
            Tokens (B, D), and the mask (B,) of rows that have one.
        """
        import torch

        if target.kind is TargetKind.POINTS:
            tokens = [
                self._compute_point_token(target.spots.xy[r], context_window, center_features[i])
                for i, r in enumerate(rows)
            ]
            return torch.stack(tokens), np.ones(len(rows), bool)
        cells = target.spots.array_coords
        if target.kind is TargetKind.GRID and target.grid is not None:
            cells = target.grid.cells
        assert cells is not None
        window_rows = np.array(
            [context_window.row_by_cell.get((int(x), int(y)), -1) for x, y in cells[rows]], np.int64
        )
        has_token = window_rows >= 0
        if not len(context_window.global_tokens):
            return center_features.new_zeros(len(rows), 0), has_token
        index = torch.from_numpy(window_rows.clip(0)).to(center_features.device)
        return context_window.global_tokens[index], has_token

    def select_point_context(
        self, xy: NDArray[np.float64], context_window: ContextWindow
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Features (M - 1, d) in the context of a point; cells (M, 2) of them and of the point."""
        import torch

        nearest = np.floor(xy / self.pitch).astype(np.int64)
        others = (context_window.cells != nearest).any(axis=1)
        cells = np.concatenate([context_window.cells[others], nearest[None]])
        return context_window.features[torch.from_numpy(others)], cells

    def _compute_point_token(
        self, xy: NDArray[np.float64], context_window: ContextWindow, center_feature: Tensor
    ) -> Tensor:
        import torch

        others, cells = self.select_point_context(xy, context_window)
        return self._compute_global_tokens(
            torch.cat([others, center_feature[None]]), cells, token_row=len(cells) - 1
        )[0]

    def _encode_window(
        self, xy: NDArray[np.float64], cells: NDArray[np.int64], loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        """The window of tiles at centers (M, 2); damaged tiles are left out."""
        keys = keys_from_centers(xy)
        yield from self._features.compute_missing(loader, keys)
        features, known = self._features.get_features(keys)
        if not known.all():
            import torch

            features, cells = features[torch.from_numpy(known)], cells[known]
        row_by_cell = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
        tokens = self._compute_global_tokens(features, cells)
        return ContextWindow(cells, features, tokens, row_by_cell, bool(known.all()))

    def _find_tissue_cells(self, window_index: CellIndex, pitch: float) -> NDArray[np.int64]:
        """(M, 2) cells of a window whose center is on the tissue, unique and sorted."""
        bounds = self.window_layout.get_bounds(*window_index)
        cells = cells_in_box(bounds, pitch, self.window_layout.width, self.window_layout.height)
        inside = contains_xy(self._tissue, *TileGrid(pitch, 0.0, cells).centres.T)
        return np.unique(cells[inside], axis=0)

    def _compute_global_tokens(
        self, features: Tensor, cells: NDArray[np.int64], token_row: int | None = None
    ) -> Tensor:
        import torch

        rows = None if token_row is None else torch.tensor([token_row], device=features.device)

        with self._features.stage_timer("context", len(cells)), torch.inference_mode():
            positions = torch.as_tensor(cells, device=features.device)
            return self._network.encode_global(features, positions, rows)

"""Context windows: the tissue tiles that the global encoder sees around each spot."""

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
from .patch_features.patch_geometry import keys_from_centers
from .patch_features.patch_loader import PatchLoader
from .prediction_progress import PredictionUpdate
from .target import Target, TargetKind

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import DKAN, Ensemble
    from .patch_features.precomputed_features import PrecomputedFeatures


CAPTURE_AREA_UM = 6_600.0  # side of the array the published networks were trained on (33 x 200 um)
MIN_WINDOW_OVERLAP = (
    0.5  # of neighbouring windows, at least: no tile lies at the edge of its window
)

Level0Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class ContextWindowLayout:
    """Squares of ``side`` level-0 px, evenly spread so that they reach from edge to edge.

    A slide no larger than one of them is one window.
    """

    side: float
    width: int
    height: int

    def find_nearest_windows(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N, 2) column and row of the window whose centre is nearest to each point (N, 2)."""
        columns = [
            self._find_nearest_index(xy[:, i], limit) for i, limit in enumerate(self._slide_size)
        ]
        return np.stack(columns, axis=1)

    def get_bounds(self, column: int, row: int) -> Level0Bounds:
        """(x0, y0, x1, y1) of a window in level-0 px, on the slide."""
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


FEATURE_FILE_PITCH = 0.0  # stands for a pitch
MAX_CACHED_WINDOWS = 12  # windows; with their tokens a few MB each at most

CellIndex = tuple[int, int]


@dataclass(frozen=True)
class ContextWindow:
    """What the tiles of one window see.

    cells : (M, 2) of its tiles. features : (M, d) of them. tokens : (M, D) in the light of
    all of them. complete : False where a damaged tile is missing.
    """

    cells: NDArray[np.int64]
    features: Tensor
    global_tokens: Tensor
    row_by_cell: dict[CellIndex, int]
    is_complete: bool


class GlobalContext:
    """Gives the spots of a target their surroundings.

    tissue : geometry in level-0 px that makes up the context.
    pitch : level-0 px between the spots the network was trained on.
    windows : the capture areas over the slide.
    ready : of a feature file, whose tiles see each other.
    """

    def __init__(
        self,
        network: DKAN | Ensemble,
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
        return self._tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        if geometry is not self._tissue:
            self._tissue = geometry
            self.clear_cache()

    def clear_cache(self) -> None:
        self._cached_windows.clear()

    def find_window_indices(self, target: Target) -> NDArray[np.int64]:
        """(N, 2) per row of the target, equal where rows share their surroundings."""
        if target.kind is TargetKind.ARRAY:
            return np.zeros((len(target), 2), np.int64)
        return self.window_layout.find_nearest_windows(target.spots.xy)

    def compute_window(
        self, target: Target, rows: NDArray[np.int64], window_index: CellIndex, loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        """What the rows of one group see; encodes what of it was not met before."""
        if target.kind is TargetKind.ARRAY:
            cells = target.spots.array
            assert cells is not None
            return (yield from self._encode_window(target.spots.xy, cells, loader))
        if target.kind is TargetKind.TILES:
            return (yield from self._compute_feature_file_window(window_index, loader))
        grid = target.grid
        pitch = self.pitch if grid is None else grid.pitch
        key = (pitch, window_index)
        own = np.empty((0, 2), np.int64)
        if grid is not None:
            off = ~contains_xy(self._tissue, *grid.centres[rows].T)
            own = grid.cells[rows[off]]  # tiles on glass that were asked for all the same
        if not len(own) and key in self._cached_windows:
            self._cached_windows.move_to_end(key)
            return self._cached_windows[key]
        cells = np.unique(
            np.concatenate([self._find_tissue_cells(window_index, pitch), own]), axis=0
        )
        made = yield from self._encode_window(TileGrid(pitch, 0.0, cells).centres, cells, loader)
        if not len(own) and made.is_complete:
            self._cache_window(key, made)
        return made

    def _compute_feature_file_window(
        self, window_index: CellIndex, loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        assert self._precomputed_features is not None
        key = (FEATURE_FILE_PITCH, window_index)
        if key not in self._cached_windows:
            made = yield from self._encode_window(
                *self._precomputed_features.select_tiles(
                    self.window_layout.get_bounds(*window_index)
                ),
                loader,
            )
            self._cache_window(key, made)
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
        """Global tokens (B, D) of rows of the target, and which have one.

        own : (B, d) features of the rows' own patches. A point between the cells takes the
        place of its nearest one, whatever other points there are.
        """
        import torch

        if target.kind is TargetKind.POINTS:
            each = [
                self._compute_point_token(target.spots.xy[r], context_window, center_features[i])
                for i, r in enumerate(rows)
            ]
            return torch.stack(each), np.ones(len(rows), bool)
        cells = target.spots.array
        if target.kind is TargetKind.GRID and target.grid is not None:
            cells = target.grid.cells
        assert cells is not None
        at = np.array(
            [context_window.row_by_cell.get((int(x), int(y)), -1) for x, y in cells[rows]], np.int64
        )
        if not len(context_window.global_tokens):
            return center_features.new_zeros(len(rows), 0), at >= 0
        return context_window.global_tokens[
            torch.from_numpy(at.clip(0)).to(center_features.device)
        ], at >= 0

    def select_point_context(
        self, xy: NDArray[np.float64], context_window: ContextWindow
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """What a point sees: features (M - 1, d), and cells (M, 2) of them and, last, of it."""
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
        """Surroundings of cells at places; a damaged one is as if it were not there."""
        keys = keys_from_centers(xy)
        yield from self._features.compute_missing(loader, keys)
        features, known = self._features.get_features(keys)
        if not known.all():
            import torch

            features, cells = features[torch.from_numpy(known)], cells[known]
        row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
        tokens = self._compute_global_tokens(features, cells)
        return ContextWindow(cells, features, tokens, row_of, bool(known.all()))

    def _find_tissue_cells(self, window_index: CellIndex, pitch: float) -> NDArray[np.int64]:
        """(M, 2) cells of a window whose centre is on the tissue; unique, sorted."""
        box = self.window_layout.get_bounds(*window_index)
        cells = cells_in_box(box, pitch, self.window_layout.width, self.window_layout.height)
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

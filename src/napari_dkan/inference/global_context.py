"""Context windows: the tissue tiles around a spot that the global encoder takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy, prepare
from shapely.geometry.base import BaseGeometry

from ..spatial.tile_grid import TileGrid, cells_in_box
from .context_layout import CellIndex, ContextWindowLayout
from .device import to_device
from .patch_features.feature_cache import PatchFeatureCache
from .patch_features.patch_geometry import keys_from_centers
from .patch_features.patch_loader import PatchLoader
from .prediction_progress import PredictionUpdate
from .target import Target, TargetKind

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import ExpressionNetwork
    from .patch_features.precomputed_features import PrecomputedFeatures


CAPTURE_AREA_UM = 6_600.0  # side of the published networks' training arrays (33 x 200 um)
FEATURE_FILE_PITCH = 0.0  # the pitch in the cache keys of feature files' windows

WindowKey = tuple[float, CellIndex, bytes]  # pitch, window, and its cells off the tissue


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


@dataclass(frozen=True)
class ZoneContext:
    """The windows of a zone, whose contexts are blended; see `ContextWindowLayout`."""

    zone: CellIndex
    windows: tuple[ContextWindow, ...]

    @property
    def is_complete(self) -> bool:
        """False where a damaged tile is missing in a window."""
        return all(window.is_complete for window in self.windows)


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
        self._precomputed_features = precomputed_features
        self._tissue = tissue
        prepare(tissue)  # points are looked up in it again and again
        self.pitch, self.window_layout = pitch, window_layout
        self._cached_windows: OrderedDict[WindowKey, ContextWindow] = OrderedDict()

    @property
    def tissue(self) -> BaseGeometry:
        """Geometry in level-0 px; another one clears the cache."""
        return self._tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        if geometry is not self._tissue:
            self._tissue = geometry
            prepare(geometry)
            self.clear_cache()

    def clear_cache(self) -> None:
        """Drop all windows."""
        self._cached_windows.clear()

    def find_zones(self, target: Target) -> NDArray[np.int64]:
        """(N, 2) zone of each row of the target; an array has one window."""
        if target.kind is TargetKind.ARRAY:
            return np.zeros((len(target), 2), np.int64)
        return self.window_layout.find_zones(target.spots.xy)

    def compute_context(
        self,
        target: Target,
        zone: CellIndex,
        loader: PatchLoader,
        current: ZoneContext | None = None,
    ) -> Generator[PredictionUpdate, None, ZoneContext]:
        """Compute the windows of a zone, unless they are those of the ``current`` one.

        Features that are not cached are encoded.
        """
        if current is not None and current.zone == zone:
            return current
        if target.kind is TargetKind.ARRAY:
            cells = target.spots.array_coords
            assert cells is not None
            window = yield from self._encode_window(target.spots.xy, cells, loader)
            return ZoneContext(zone, (window,))
        windows = []
        for index in self.window_layout.list_windows(zone):
            windows.append((yield from self._compute_window(target, index, loader)))
        return ZoneContext(zone, tuple(windows))

    def _compute_window(
        self, target: Target, index: CellIndex, loader: PatchLoader
    ) -> Generator[PredictionUpdate, None, ContextWindow]:
        """A window of tissue tiles, and of the target's tiles off the tissue that see it."""
        key = self._make_key(target, index)
        pitch, _, off_tissue = key
        if key in self._cached_windows:
            self._cached_windows.move_to_end(key)
            return self._cached_windows[key]
        if target.kind is TargetKind.TILES:
            assert self._precomputed_features is not None
            bounds = self.window_layout.get_bounds(*index)
            xy, cells = self._precomputed_features.select_tiles(bounds)
        else:
            others = np.frombuffer(off_tissue, np.int64).reshape(-1, 2)
            cells = np.concatenate([self._find_tissue_cells(index, pitch), others])
            cells = np.unique(cells, axis=0)
            xy = TileGrid(pitch, 0.0, cells).centres
        window = yield from self._encode_window(xy, cells, loader)
        if window.is_complete or target.kind is TargetKind.TILES:
            self._cached_windows[key] = window
            # Two rows of windows: a map from the top down computes each of them once.
            while len(self._cached_windows) > 2 * self.window_layout.n_columns + 2:
                self._cached_windows.popitem(last=False)
        return window

    def has_context(self, target: Target, zone: CellIndex, current: ZoneContext) -> bool:
        """Whether the zone is the ``current`` one, or all of its windows are cached."""
        return zone == current.zone or all(
            self._make_key(target, index) in self._cached_windows
            for index in self.window_layout.list_windows(zone)
        )

    def _make_key(self, target: Target, index: CellIndex) -> WindowKey:
        if target.kind is TargetKind.TILES:
            return FEATURE_FILE_PITCH, index, b""
        if target.grid is None:
            return self.pitch, index, b""
        distance = np.abs(self.find_zones(target) - 2 * np.asarray(index)).max(axis=1)
        seeing = target.grid.take(distance <= 1)
        off_tissue = seeing.cells[~contains_xy(self._tissue, *seeing.centres.T)]
        return target.grid.pitch, index, off_tissue.tobytes()

    def compute_weights(
        self, target: Target, rows: NDArray[np.int64], context: ZoneContext
    ) -> Tensor:
        """(B, W) weight of each window of the rows' zone."""
        xy = target.spots.xy[rows]
        if len(context.windows) == 1:
            weights = np.ones((len(rows), 1), np.float32)
        else:
            weights = self.window_layout.compute_weights(xy, context.zone)
        return to_device(weights, self._network.device)

    def standardize(self, features: Tensor, context: ZoneContext, weights: Tensor) -> Tensor:
        """Standardize features (B, K, d) of rows by those of their windows, weighted (B, W)."""
        return blend(
            [
                self._network.standardize_by_slide(features, window.features)
                for window in context.windows
            ],
            weights,
        )

    def select_global_tokens(
        self,
        target: Target,
        rows: NDArray[np.int64],
        context: ZoneContext,
        weights: Tensor,
        center_features: Tensor,
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """Select the global tokens of rows of the target.

        A point replaces its nearest cell, independently of other points.

        Parameters
        ----------
        weights : Tensor
            (B, W) of the windows, from `compute_weights`.
        center_features : Tensor
            (B, d) features of the rows' own patches.

        Returns
        -------
        tuple
            Tokens (B, D), and the mask (B,) of rows that have one.
        """
        parts = [
            self._select_window_tokens(target, rows, window, center_features)
            for window in context.windows
        ]
        has_token = np.logical_and.reduce([has for _, has in parts])
        return blend([tokens for tokens, _ in parts], weights), has_token

    def _select_window_tokens(
        self,
        target: Target,
        rows: NDArray[np.int64],
        context_window: ContextWindow,
        center_features: Tensor,
    ) -> tuple[Tensor, NDArray[np.bool_]]:
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
            dim = self._network.config.members_dim
            return center_features.new_zeros(len(rows), dim), has_token
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


def blend(parts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sum of W tensors (B, ...) with the weights (B, W)."""
    if len(parts) == 1:
        return parts[0]
    shape = (-1, *(1,) * (parts[0].ndim - 1))
    each = [part * weights[:, i].view(shape) for i, part in enumerate(parts)]
    return sum(each[1:], each[0])

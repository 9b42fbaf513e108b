"""Predictions as napari layers: a heatmap for a grid, coloured squares for spots.

A grid is one Image layer at tile resolution with NaN where nothing is predicted, so that a change
of the gene replaces a few thousand numbers. Spots are one Points layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...inference.prediction import Prediction
from ...inference.target import match_coarse_rows
from ...spatial.coordinates import swap_xy
from ..session.prediction_overlay import GeneDecoder, PredictionOverlay
from ..session.slide_layer import METADATA_PREFIX
from .tile_map_layer import TileMapLayer
from .value_layers import (
    VALUE_COLUMN,
    color_grid,
    color_spots,
    grid_transform,
    make_grid_layer,
    make_spots_layer,
)

if TYPE_CHECKING:
    from ...export.saved_result import SavedReliability
    from ...model.checkpoint.training_reference import TrainingReference


COLOR_BAR_SIZE = (20, 120)  # screen px; of a laptop's canvas it leaves most to the tissue


def format_overlay_title(overlay: PredictionOverlay, gene: str) -> str:
    """Format the title of a prediction's layer: the gene, the kind of its values, the label."""
    title = f"{gene} {overlay.prediction.get_value_kind(gene)}"
    return f"{title}, {overlay.label}" if overlay.label else title


class GridOverlay:
    """A tile grid as one Image layer; see `PredictionOverlay`.

    Parameters
    ----------
    prediction
    decode
    mpp
        um per level-0 px.
    opacity
    layer
        Of a map that this one replaces; it is placed anew and keeps all else. None makes one.
    """

    def __init__(
        self,
        prediction: Prediction,
        decode: GeneDecoder,
        mpp: float,
        opacity: float,
        layer: TileMapLayer | None = None,
    ) -> None:
        grid = prediction.target.grid
        assert grid is not None
        self.prediction, self.decode, self._grid = prediction, decode, grid
        self.rough: Prediction | None = None
        self.reference: TrainingReference | SavedReliability | None = None
        self.from_file = self.from_clicks = self.is_mixed = False
        self.place = self.label = ""
        self.covered = np.zeros(len(grid), bool)  # tiles that another map shows
        self.smooth = False
        self._rough_rows: NDArray[np.int64] | None = None  # of each tile in the rough map
        self._shown_values = np.full(len(grid), np.nan, np.float32)
        cells = (grid.cells - grid.first_cell).tolist()
        self._row_of_cell = {(x, y): i for i, (x, y) in enumerate(cells)}
        if layer is None:
            layer = make_grid_layer(grid, mpp, "predicted", opacity=opacity, contrast_limits=(0, 1))
        else:
            layer.place(**grid_transform(grid, mpp))
        self.layer = layer
        layer.metadata[METADATA_PREFIX] = prediction.provenance
        self.colorbar = self.layer.colorbar
        self.colorbar.size = COLOR_BAR_SIZE

    def fill(self, prediction: Prediction, decode: GeneDecoder) -> None:
        self.prediction, self.decode = prediction, decode
        self.layer.metadata[METADATA_PREFIX] = prediction.provenance

    def set_rough(self, rough: Prediction) -> None:
        """Show a coarse map of the same target where tiles are not predicted yet."""
        assert rough.target.grid is not None
        self.rough = replace(rough, scores=self.prediction.scores)
        self._rough_rows = match_coarse_rows(self._grid, rough.target.grid)

    def draw(self, gene: str, limits: tuple[float, float], colormap: str) -> None:
        values = np.where(self.covered, np.float32(np.nan), self.prediction.get_gene_values(gene))
        self._shown_values = values
        if self.rough is not None and self._rough_rows is not None:
            coarse = np.append(self.rough.get_gene_values(gene), np.float32(np.nan))
            is_drawn = self.prediction.predicted_mask | self.covered
            values = np.where(is_drawn, values, coarse[self._rough_rows])
        same_limits = tuple(self.layer.contrast_limits) == limits
        self.layer.set_tiles(self._grid.to_raster(values), self.smooth, thumbnail=same_limits)
        color_grid(self.layer, limits, colormap)

    def value_at(self, world: tuple[float, float]) -> float | None:
        row = self.row_at(world)
        value = float(np.nan if row is None else self._shown_values[row])
        return None if np.isnan(value) else value

    def row_at(self, world: tuple[float, float]) -> int | None:
        row, column = self.layer.tile_at(world)
        return self._row_of_cell.get((column, row))


class SpotsOverlay:
    """Spots as one Points layer; its features contain the shown gene only."""

    def __init__(
        self,
        prediction: Prediction,
        decode: GeneDecoder,
        mpp: float,
        size_um: float,
        opacity: float,
    ) -> None:
        self.prediction, self.decode = prediction, decode
        self.rough: Prediction | None = None
        self.reference: TrainingReference | SavedReliability | None = None
        self.from_file = self.from_clicks = self.is_mixed = False
        self.place = self.label = ""
        self._mpp, self._size_um = mpp, size_um
        self.layer = make_spots_layer(
            np.empty((0, 2)),
            mpp,
            "predicted",
            size_um,
            symbol="square",
            opacity=opacity,
            border_color="white",
            border_width=0.03,
            features={VALUE_COLUMN: np.empty(0, np.float32)},
            metadata={METADATA_PREFIX: prediction.provenance},
        )
        self.colorbar = self.layer.face_colorbar
        self.colorbar.size = COLOR_BAR_SIZE
        self._shown_values = np.empty(0, np.float32)

    def fill(self, prediction: Prediction, decode: GeneDecoder) -> None:
        self.prediction, self.decode = prediction, decode
        self.layer.metadata[METADATA_PREFIX] = prediction.provenance

    def draw(self, gene: str, limits: tuple[float, float], colormap: str) -> None:
        done = self.prediction.predicted_mask
        points = swap_xy(self.prediction.target.spots.xy[done])
        self._shown_values = self.prediction.get_gene_values(gene)[done]
        if len(points) != len(self.layer.data):
            self.layer.data = points
            self.layer.size = self._size_um / self._mpp
        color_spots(self.layer, self._shown_values, limits, colormap, gene)

    def value_at(self, world: tuple[float, float]) -> float | None:
        point = self._find_point(world)
        return None if point is None else float(self._shown_values[point])

    def row_at(self, world: tuple[float, float]) -> int | None:
        point = self._find_point(world)
        if point is None:
            return None
        return int(np.flatnonzero(self.prediction.predicted_mask)[point])

    def _find_point(self, world: tuple[float, float]) -> int | None:
        position = np.asarray(self.layer.world_to_data(world))
        half_side = self._size_um / self._mpp / 2
        inside = np.flatnonzero((np.abs(self.layer.data - position) <= half_side).all(axis=1))
        return int(inside[-1]) if len(inside) else None

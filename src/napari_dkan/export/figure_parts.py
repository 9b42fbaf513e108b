"""What a figure is drawn from. Lengths are um from the slide's top left corner, y downwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class FigureExtent:
    """A rectangle in um."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True, eq=False)
class HistologyImage:
    """Histology: pixels (H, W, 3) uint8, and what they cover."""

    pixels: NDArray[np.uint8]
    extent: FigureExtent


@dataclass(frozen=True, eq=False)
class GridHeatmap:
    """Values (R, C) of a tile grid, NaN where there is none, and what they cover."""

    values: NDArray[np.float32]
    extent: FigureExtent


@dataclass(frozen=True, eq=False)
class SpotHeatmap:
    """Values (N,) of squares of this side around xy (N, 2)."""

    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    side: float


@dataclass(frozen=True, eq=False)
class FigureLegend:
    """What the colours mean. colours : (K, 4) RGBA 0..1 from the lower to the upper limit."""

    gene: str
    value_kind: str  # "predicted", or "predicted zero-shot"
    units: str
    limits: tuple[float, float]
    colors: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class FigureContent:
    """All that is drawn.

    box : the part of the slide that is shown. heats : maps, the lowest first. unreliable :
    (M, 4) left, top, right, bottom of tiles not to be relied on. regions : drawn outlines in um.
    caption : sentences below; that nothing of this is for diagnosis is always added.
    """

    extent: FigureExtent
    histology: HistologyImage | None
    heatmaps: tuple[GridHeatmap | SpotHeatmap, ...]
    legend: FigureLegend
    opacity: float
    caption: str
    unreliable_boxes: NDArray[np.float64]
    regions: BaseGeometry | None = None

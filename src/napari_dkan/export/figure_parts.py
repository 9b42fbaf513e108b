"""What a figure is drawn from. Lengths are um from the slide's top left corner, y downwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class Box:
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
class Ground:
    """Histology: pixels (H, W, 3) uint8, and what they cover."""

    pixels: NDArray[np.uint8]
    box: Box


@dataclass(frozen=True, eq=False)
class GridHeat:
    """Values (R, C) of a tile grid, NaN where there is none, and what they cover."""

    values: NDArray[np.float32]
    box: Box


@dataclass(frozen=True, eq=False)
class SpotsHeat:
    """Values (N,) of squares of this side around xy (N, 2)."""

    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    side: float


@dataclass(frozen=True, eq=False)
class Legend:
    """What the colours mean. colours : (K, 4) RGBA 0..1 from the lower to the upper limit."""

    gene: str
    kind: str  # "predicted", or "predicted zero-shot"
    units: str
    limits: tuple[float, float]
    colours: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class FigureInput:
    """All that is drawn.

    box : the part of the slide that is shown. heats : maps, the lowest first. unreliable :
    (M, 4) left, top, right, bottom of tiles not to be relied on. regions : drawn outlines in um.
    caption : sentences below; that nothing of this is for diagnosis is always added.
    """

    box: Box
    ground: Ground | None
    heats: tuple[GridHeat | SpotsHeat, ...]
    legend: Legend
    opacity: float
    caption: str
    unreliable: NDArray[np.float64]
    regions: BaseGeometry | None = None

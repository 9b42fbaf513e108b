"""What the gene lens looks at: the cells of a slide's grid, and their values gene by gene."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ..inference.target import Kind, Target
from ..spatial.grid import TileGrid
from .lens_circle import Circle
from .overlay import robust_limits

GENES = 12  # whose values are kept; what was shown longest ago goes first

Cells = NDArray[np.int64]


class Sheet:
    """One gene over all cells (rows, columns).

    values : float32, NaN where nothing is known. asked : what was predicted before was looked
    up. tried : predicted, or not to be had. Only one thread at a time writes; any may read.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.values = np.full(shape, np.nan, np.float32)
        self.asked, self.tried = np.zeros(shape, bool), np.zeros(shape, bool)
        self._limits: tuple[float, float] | None = None

    def put(self, cells: Cells, values: NDArray[np.float32]) -> None:
        self.values[cells[:, 1], cells[:, 0]] = values
        self.tried[cells[:, 1], cells[:, 0]] = True

    def mark_asked(self, cells: Cells) -> None:
        self.asked[cells[:, 1], cells[:, 0]] = True

    def forget_asked(self, cells: Cells) -> None:
        self.asked[cells[:, 1], cells[:, 0]] = False

    def mark_tried(self, cells: Cells) -> None:
        self.tried[cells[:, 1], cells[:, 0]] = True

    def limits(self) -> tuple[float, float]:
        """Of all values so far; they only widen, so that colours do not flicker as tiles come."""
        if np.isfinite(self.values).any():
            low, high = robust_limits([self.values])
            before = self._limits or (low, high)
            self._limits = min(low, before[0]), max(high, before[1])
        return self._limits or (0.0, 1.0)

    def ask_again(self) -> None:
        """Elsewhere more may have been predicted by now."""
        self.asked = np.isfinite(self.values)


class Field:
    """The cells whose centre lies on the slide, as a job over all of it would have them.

    pitch : level-0 px between cells. tissue_only : the others are not predicted.
    """

    def __init__(
        self,
        size: tuple[int, int],
        pitch: float,
        pitch_um: float,
        tissue: BaseGeometry,
        tissue_only: bool,
    ) -> None:
        self.pitch, self.pitch_um = pitch, pitch_um
        width, height = size
        self.shape = _count(height, pitch), _count(width, pitch)
        self._tissue, self._tissue_only = tissue, tissue_only
        self._on_tissue: NDArray[np.bool_] | None = None
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether it is known which cells lie on the tissue."""
        return self._on_tissue is not None

    @property
    def empty(self) -> bool:
        """There is nothing to look at; False until that is known."""
        return self._on_tissue is not None and not self._wanted().any()

    def any_unasked(self, sheet: Sheet) -> bool:
        return self._on_tissue is None or bool((self._on_tissue & ~sheet.asked).any())

    def find_tissue(self) -> None:
        """Which cells lie on the tissue; takes a moment."""
        if self._on_tissue is None:
            row, column = np.indices(self.shape)
            centres = ((column + 0.5) * self.pitch, (row + 0.5) * self.pitch)
            self._on_tissue = np.asarray(contains_xy(self._tissue, *centres))

    def sheet(self, gene: str) -> Sheet:
        """The gene's sheet, made when first asked for. Call it in the GUI thread."""
        if gene not in self._sheets:
            self._sheets[gene] = Sheet(self.shape)
            while len(self._sheets) > GENES:
                self._sheets.popitem(last=False)
        self._sheets.move_to_end(gene)
        return self._sheets[gene]

    def ask_again(self) -> None:
        for sheet in self._sheets.values():
            sheet.ask_again()

    def target(self, cells: Cells) -> Target:
        grid = TileGrid(self.pitch, self.pitch_um, cells)
        return Target(Kind.GRID, grid.spots(), grid)

    def value(self, sheet: Sheet, x: float, y: float) -> float | None:
        """Of the cell at (x, y) in level-0 px; None where there is none."""
        row, column = int(y // self.pitch), int(x // self.pitch)
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return None
        value = float(sheet.values[row, column])
        return None if np.isnan(value) else value

    def unasked(self, sheet: Sheet, circle: Circle, most: int) -> Cells:
        """Up to ``most`` cells not looked up yet, those nearest to the circle first."""
        if self._on_tissue is None:
            return np.empty((0, 2), np.int64)
        # what lies off the tissue is never kept
        row, column = np.nonzero(self._on_tissue & ~sheet.asked)
        cells = np.stack([column, row], axis=1).astype(np.int64)
        distance = circle.distance((cells + 0.5) * self.pitch)
        if len(cells) > most:
            nearest = np.argpartition(distance, most)[:most]
            cells, distance = cells[nearest], distance[nearest]
        return cells[np.argsort(distance)]

    def missing(self, sheet: Sheet, circle: Circle) -> Cells:
        """Cells under the circle that are still to be predicted, nearest to its centre first.

        Never some on the tissue and some off it: what is off it would be seen by the others.
        """
        if self._on_tissue is None:
            return np.empty((0, 2), np.int64)
        cells = circle.cells(self.pitch, self.shape)
        column, row = cells.T
        open_ = self._wanted()[row, column] & ~sheet.tried[row, column]
        on_tissue = open_ & self._on_tissue[row, column]
        return cells[on_tissue if on_tissue.any() else open_]

    def _wanted(self) -> NDArray[np.bool_]:
        assert self._on_tissue is not None
        return self._on_tissue if self._tissue_only else np.ones(self.shape, bool)


def _count(length: int, pitch: float) -> int:
    """Cells whose centre lies within the length; one at least."""
    return max(1, int(np.ceil(length / pitch - 0.5)))

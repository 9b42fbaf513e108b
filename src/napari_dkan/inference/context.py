"""The slide context: the tiles that the global encoder sees around what is predicted.

The encoder was trained on the spots of a whole capture area. A tile of a grid, and every
click, sees the tissue tiles of the context window it lies in; spots with array coordinates
are their own context.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry.base import BaseGeometry

from ..spatial.grid import TileGrid, cells_in_box
from .features import PatchFeatures
from .job import Update
from .patches import keys_of
from .reading import Readers
from .target import Kind, Target
from .windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import DKAN, Ensemble
    from .ready.features import ReadyFeatures

FILE = 0.0  # stands for a pitch
KEPT = 12  # windows; with their tokens a few MB each at most

Cell = tuple[int, int]


@dataclass(frozen=True)
class Surroundings:
    """What the tiles of one window see.

    cells : (M, 2) of its tiles. features : (M, d) of them. tokens : (M, D) in the light of
    all of them. complete : False where a damaged tile is missing.
    """

    cells: NDArray[np.int64]
    features: Tensor
    tokens: Tensor
    row_of: dict[Cell, int]
    complete: bool


class SlideContext:
    """Gives the spots of a target their surroundings.

    tissue : geometry in level-0 px that makes up the context.
    pitch : level-0 px between the spots the network was trained on.
    windows : the capture areas over the slide.
    ready : of a feature file, whose tiles see each other.
    """

    def __init__(
        self,
        network: DKAN | Ensemble,
        features: PatchFeatures,
        tissue: BaseGeometry,
        pitch: float,
        windows: Windows,
        ready: ReadyFeatures | None = None,
    ) -> None:
        self._network, self._features = network, features
        self._tissue, self._ready = tissue, ready
        self.pitch, self.windows = pitch, windows
        self._kept: OrderedDict[tuple[float, Cell], Surroundings] = OrderedDict()

    @property
    def tissue(self) -> BaseGeometry:
        return self._tissue

    @tissue.setter
    def tissue(self, geometry: BaseGeometry) -> None:
        if geometry is not self._tissue:
            self._tissue = geometry
            self.forget()

    def forget(self) -> None:
        self._kept.clear()

    def groups(self, target: Target) -> NDArray[np.int64]:
        """(N, 2) per row of the target, equal where rows share their surroundings."""
        if target.kind is Kind.ARRAY:
            return np.zeros((len(target), 2), np.int64)
        return self.windows.of(target.spots.xy)

    def of(
        self, target: Target, rows: NDArray[np.int64], group: Cell, readers: Readers
    ) -> Generator[Update, None, Surroundings]:
        """What the rows of one group see; encodes what of it was not met before."""
        if target.kind is Kind.ARRAY:
            cells = target.spots.array
            assert cells is not None
            return (yield from self._see(target.spots.xy, cells, readers))
        if target.kind is Kind.TILES:
            return (yield from self._of_tiles(group, readers))
        grid = target.grid
        pitch = self.pitch if grid is None else grid.pitch
        key = (pitch, group)
        own = np.empty((0, 2), np.int64)
        if grid is not None:
            off = ~contains_xy(self._tissue, *grid.centres[rows].T)
            own = grid.cells[rows[off]]  # tiles on glass that were asked for all the same
        if not len(own) and key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        cells = np.unique(np.concatenate([self._tissue_cells(group, pitch), own]), axis=0)
        made = yield from self._see(TileGrid(pitch, 0.0, cells).centres, cells, readers)
        if not len(own) and made.complete:
            self._keep(key, made)
        return made

    def _of_tiles(self, group: Cell, readers: Readers) -> Generator[Update, None, Surroundings]:
        assert self._ready is not None
        key = (FILE, group)
        if key not in self._kept:
            made = yield from self._see(*self._ready.within(self.windows.bounds(*group)), readers)
            self._keep(key, made)
        return self._kept[key]

    def _keep(self, key: tuple[float, Cell], made: Surroundings) -> None:
        self._kept[key] = made
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def tokens(
        self, target: Target, rows: NDArray[np.int64], seen: Surroundings, own: Tensor
    ) -> tuple[Tensor, NDArray[np.bool_]]:
        """Global tokens (B, D) of rows of the target, and which have one.

        own : (B, d) features of the rows' own patches. A point between the cells takes the
        place of its nearest one, whatever other points there are.
        """
        import torch

        if target.kind is Kind.POINTS:
            each = [self._of_point(target.spots.xy[r], seen, own[i]) for i, r in enumerate(rows)]
            return torch.stack(each), np.ones(len(rows), bool)
        cells = target.spots.array
        if target.kind is Kind.GRID and target.grid is not None:
            cells = target.grid.cells
        assert cells is not None
        at = np.array([seen.row_of.get((int(x), int(y)), -1) for x, y in cells[rows]], np.int64)
        if not len(seen.tokens):
            return own.new_zeros(len(rows), 0), at >= 0
        return seen.tokens[torch.from_numpy(at.clip(0)).to(own.device)], at >= 0

    def around_point(
        self, xy: NDArray[np.float64], seen: Surroundings
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """What a point sees: features (M - 1, d), and cells (M, 2) of them and, last, of it."""
        import torch

        nearest = np.floor(xy / self.pitch).astype(np.int64)
        others = (seen.cells != nearest).any(axis=1)
        cells = np.concatenate([seen.cells[others], nearest[None]])
        return seen.features[torch.from_numpy(others)], cells

    def _of_point(self, xy: NDArray[np.float64], seen: Surroundings, own: Tensor) -> Tensor:
        import torch

        others, cells = self.around_point(xy, seen)
        return self._global(torch.cat([others, own[None]]), cells, only=len(cells) - 1)[0]

    def _see(
        self, xy: NDArray[np.float64], cells: NDArray[np.int64], readers: Readers
    ) -> Generator[Update, None, Surroundings]:
        """Surroundings of cells at places; a damaged one is as if it were not there."""
        keys = keys_of(xy)
        yield from self._features.ensure(readers, keys)
        features, known = self._features.at(keys)
        if not known.all():
            import torch

            features, cells = features[torch.from_numpy(known)], cells[known]
        row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(cells)}
        tokens = self._global(features, cells)
        return Surroundings(cells, features, tokens, row_of, bool(known.all()))

    def _tissue_cells(self, window: Cell, pitch: float) -> NDArray[np.int64]:
        """(M, 2) cells of a window whose centre is on the tissue; unique, sorted."""
        box = self.windows.bounds(*window)
        cells = cells_in_box(box, pitch, self.windows.width, self.windows.height)
        inside = contains_xy(self._tissue, *TileGrid(pitch, 0.0, cells).centres.T)
        return np.unique(cells[inside], axis=0)

    def _global(
        self, features: Tensor, cells: NDArray[np.int64], only: int | None = None
    ) -> Tensor:
        import torch

        rows = None if only is None else torch.tensor([only], device=features.device)

        with self._features.stages("context", len(cells)), torch.inference_mode():
            positions = torch.as_tensor(cells, device=features.device)
            return self._network.global_tokens(features, positions, rows)

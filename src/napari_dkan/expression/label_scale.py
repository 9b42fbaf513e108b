"""Convert counts to training labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .gene_species import describe_species
from .panel import Panel

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class LabelScale:
    """Library size over the panel, logarithm and smoothing (see docs/method.md).

    Attributes
    ----------
    target_sum
        Library size of a spot over the panel only.
    base
        Base of the logarithm of (1 + x).
    smoothing
        Side of the square array neighbourhood that is averaged, 1 for none.
    """

    target_sum: float = 10_000.0
    base: float = 10.0
    smoothing: int = 3

    @property
    def name(self) -> str:
        """Short text for color bars: ``log10(1 + counts per 10k of panel)``."""
        per = f"{self.target_sum / 1000:g}k" if self.target_sum >= 1000 else f"{self.target_sum:g}"
        smooth = f", {self.smoothing}x{self.smoothing} mean" if self.smoothing > 1 else ""
        base = "ln" if abs(self.base - np.e) < 1e-6 else f"log{self.base:g}"
        return f"{base}(1 + counts per {per} of panel){smooth}"

    def normalize_and_log(self, counts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalise raw panel counts (N, G) and take the logarithm.

        Raises ValueError unless every row total is positive.
        """
        total = counts.sum(axis=1, keepdims=True)
        if (total <= 0).any():
            raise ValueError("spots with a zero panel total must be dropped before")
        scaled = counts / total * self.target_sum
        return np.asarray(np.log1p(scaled) / np.log(self.base), dtype=np.float32)

    def smooth(self, values: NDArray[np.float32], array: NDArray[np.int64]) -> NDArray[np.float32]:
        """Average values (N, G) over the array neighbourhood, over existing spots only."""
        if self.smoothing <= 1:
            return values
        neighbors = self.neighbor_matrix(array)
        count = np.diff(neighbors.indptr)[:, None]
        return np.asarray((neighbors @ values) / count.astype(values.dtype), values.dtype)

    def neighbor_matrix(self, array: NDArray[np.int64]) -> csr_matrix:
        """Return (N, N) with ones at the existing spots of each spot's array neighbourhood.

        The neighbourhood is a square of `smoothing` array positions a side and contains the spot
        itself. On a hexagonal (Visium) array it contains the positions that exist. Where a
        position is given twice, the last spot counts.

        Parameters
        ----------
        array
            (N, 2) array coordinates (x, y).
        """
        from scipy.sparse import csr_matrix

        radius = self.smoothing // 2
        offsets = np.arange(-radius, radius + 1)
        n = len(array)
        low = array.min(axis=0) - radius if n else np.zeros(2, np.int64)
        height = int(np.ptp(array[:, 1])) + 2 * radius + 1 if n else 1
        keys = (array[:, 0] - low[0]) * height + array[:, 1] - low[1]
        present, last = np.unique(keys[::-1], return_index=True)
        last = n - 1 - last
        # columns by spot, then by offset along x and y: sums run in this order
        wanted = keys[:, None] + (offsets[:, None] * height + offsets).ravel()
        place = np.minimum(np.searchsorted(present, wanted), max(len(present) - 1, 0))
        exists = present[place] == wanted
        ends = np.concatenate([[0], np.cumsum(exists.sum(axis=1))])
        columns = last[place[exists]]
        return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(n, n))


@dataclass(frozen=True, eq=False)
class PanelCounts:
    """Raw panel counts of N labelled spots: what their labels are made of.

    Attributes
    ----------
    values
        (N, G) float32 counts, genes in panel order. Every row has a positive total.
    array
        (N, 2) integer array coordinates (x, y).
    scale
        Label scale, whose neighbourhood the labels are averaged over.
    """

    values: NDArray[np.float32]
    array: NDArray[np.int64]
    scale: LabelScale

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def totals(self) -> NDArray[np.float64]:
        """(N,) panel totals."""
        return np.asarray(self.values.sum(axis=1, dtype=np.float64), np.float64)

    @property
    def median_total(self) -> float:
        """Median panel total over the spots."""
        return float(np.median(self.totals))

    @cached_property
    def depth(self) -> NDArray[np.float64]:
        """(N,) log10(1 + panel total), averaged over the same neighbours as the labels."""
        return self.average_over_neighbors(np.log10(1 + self.totals)[:, None])[:, 0]

    def labels(self) -> NDArray[np.float32]:
        """Return the labels (N, G)."""
        return self.scale.smooth(
            self.scale.normalize_and_log(self.values.astype(float)), self.array
        )

    def average_over_neighbors(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average values (N, K) over the array neighbourhood of the labels."""
        sizes = self.sum_over_neighbors(np.ones((len(values), 1)))
        return np.asarray(self.sum_over_neighbors(values) / sizes, np.float64)

    def sum_over_neighbors(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum values (N, K) over the array neighbourhood of the labels, the spot included."""
        return np.asarray(self.scale.neighbor_matrix(self.array) @ values, np.float64)

    def take(self, rows: NDArray[np.integer]) -> PanelCounts:
        """Select spots; labels and depth are then averaged over these spots only."""
        return PanelCounts(self.values[rows], self.array[rows], self.scale)

    def take_genes(self, columns: Sequence[int]) -> PanelCounts:
        """Select genes; totals are then over these genes only, and must be positive."""
        return PanelCounts(self.values[:, list(columns)], self.array, self.scale)


@dataclass(frozen=True)
class SectionLabels:
    """Labels of the spots of a section that have labels.

    Attributes
    ----------
    values
        (N, G) float32 on the label scale, genes in panel order.
    rows
        (N,) rows of these spots in the section.
    dropped_spots
        Names of the spots without labels, as their panel total is zero.
    counts
        Raw panel counts of the labelled spots, of which the labels are made.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    dropped_spots: tuple[str, ...]
    counts: PanelCounts


def labels_from_section(section: AnnData, panel: Panel, scale: LabelScale) -> SectionLabels:
    """Compute the labels of a section from its panel counts.

    A spot without panel counts has no label, since its library size is zero. It is removed before
    smoothing.

    Raises
    ------
    SpotsError
        The section does not measure all panel genes, has negative or missing counts or no array
        coordinates, or no spot has panel counts.
    """
    name = section.uns.get("section", "the section")
    missing = [s for s in panel.symbols if s not in section.var_names]
    if missing:
        species = describe_species(map(str, section.var_names))
        look = f"its own look like {species}; " if species else ""
        raise SpotsError(
            f"{name} does not measure {len(missing)} of the panel's {len(panel)} genes "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); {look}"
            "use a panel of genes that every section has."
        )
    counts = section[:, list(panel.symbols)].X
    counts = np.asarray(counts.toarray() if hasattr(counts, "toarray") else counts, dtype=float)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise SpotsError(f"{name} holds negative or missing counts; give raw counts.")
    positive = counts.sum(axis=1) > 0
    if not positive.any():
        raise SpotsError(f"No spot of {name} has a count of any panel gene.")
    rows = np.flatnonzero(positive)
    array = array_coords_from_section(section)
    labeled = PanelCounts(counts[rows].astype(np.float32), array[rows], scale)
    dropped = tuple(map(str, section.obs_names[~positive]))
    return SectionLabels(labeled.labels(), rows, dropped, labeled)


def array_coords_from_section(section: AnnData) -> NDArray[np.int64]:
    """Return the array coordinates (N, 2) of the spots of a section along x and y.

    Raises SpotsError if the section has none, or if they are missing or fractional at a spot.
    """
    try:
        columns = section.obs[["array_col", "array_row"]]
        values: NDArray[np.float64] = columns.to_numpy(dtype=np.float64)
        if not (np.isfinite(values).all() and (values == np.round(values)).all()):
            raise ValueError("missing or fractional")  # a cast to int would hide it
        return values.astype(np.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise SpotsError(
            f"{section.uns.get('section', 'The section')} has no whole array coordinates in "
            "obs['array_row'] and obs['array_col']; they are needed to smooth and to train."
        ) from error

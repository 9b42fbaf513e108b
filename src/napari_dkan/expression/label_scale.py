"""Convert counts to training labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .gene_species import describe_species
from .panel import Panel

if TYPE_CHECKING:
    from anndata import AnnData


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
        radius = self.smoothing // 2
        row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(array)}
        out = np.empty_like(values)
        for i, (x, y) in enumerate(array):
            neighbours = [
                row
                for dx in range(-radius, radius + 1)
                for dy in range(-radius, radius + 1)
                if (row := row_of.get((int(x) + dx, int(y) + dy))) is not None
            ]
            out[i] = values[neighbours].mean(axis=0)
        return out


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
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    dropped_spots: tuple[str, ...]


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
    values = scale.smooth(scale.normalize_and_log(counts[rows]), array[rows])
    dropped = tuple(map(str, section.obs_names[~positive]))
    return SectionLabels(values, rows, dropped)


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

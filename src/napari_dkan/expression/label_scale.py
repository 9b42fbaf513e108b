"""LabelScale: how counts become training labels, and the labels of a section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .panel import Panel

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class LabelScale:
    """Counts over the panel -> library size -> log -> smoothing (dkan-method.md, section 2).

    target_sum : per-spot library size over the panel only.
    base : base of the logarithm of (1 + x).
    smoothing : side of the square array neighbourhood averaged over, 1 for none.
    """

    target_sum: float = 10_000.0
    base: float = 10.0
    smoothing: int = 3

    @property
    def name(self) -> str:
        """Short text for colour bars: ``log10(1 + counts per 10k of panel)``."""
        per = f"{self.target_sum / 1000:g}k" if self.target_sum >= 1000 else f"{self.target_sum:g}"
        smooth = f", {self.smoothing}x{self.smoothing} mean" if self.smoothing > 1 else ""
        base = "ln" if abs(self.base - np.e) < 1e-6 else f"log{self.base:g}"
        return f"{base}(1 + counts per {per} of panel){smooth}"

    def normalize_and_log(self, counts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalise and log raw panel counts (N, G); every row total must be positive."""
        total = counts.sum(axis=1, keepdims=True)
        if (total <= 0).any():
            raise ValueError("spots with a zero panel total must be dropped before")
        scaled = counts / total * self.target_sum
        return (np.log1p(scaled) / np.log(self.base)).astype(np.float32)

    def smooth(self, values: NDArray[np.float32], array: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean over the array neighbourhood, present spots only, the spot included."""
        if self.smoothing <= 1:
            return values
        reach = self.smoothing // 2
        row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(array)}
        out = np.empty_like(values)
        for i, (x, y) in enumerate(array):
            near = [
                row
                for dx in range(-reach, reach + 1)
                for dy in range(-reach, reach + 1)
                if (row := row_of.get((int(x) + dx, int(y) + dy))) is not None
            ]
            out[i] = values[near].mean(axis=0)
        return out


@dataclass(frozen=True)
class SectionLabels:
    """Labels of the spots that have one.

    values : (N, G) float32 on the label scale, genes in panel order.
    rows : (N,) rows of the section these are.
    dropped : names of the spots left out because their panel total is zero.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    dropped_spots: tuple[str, ...]


def labels_from_section(section: AnnData, panel: Panel, scale: LabelScale) -> SectionLabels:
    """Labels of a section: panel counts, normalised and logged, then smoothed on the array.

    A spot without any panel count has no label (its library size is zero); it is dropped before
    smoothing and reported.

    Raises SpotsError when the section lacks panel genes, holds negative or missing counts, or no
    spot is left.
    """
    name = section.uns.get("section", "the section")
    missing = [s for s in panel.symbols if s not in section.var_names]
    if missing:
        raise SpotsError(
            f"{name} does not measure {len(missing)} of the panel's {len(panel)} genes "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); "
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
    """(N, 2) array coordinates along x and y of a section's spots.

    Raises SpotsError when the section has none.
    """
    try:
        return section.obs[["array_col", "array_row"]].to_numpy(dtype=np.int64)
    except (KeyError, ValueError) as error:
        raise SpotsError(
            f"{section.uns.get('section', 'The section')} has no whole array coordinates in "
            "obs['array_row'] and obs['array_col']; they are needed to smooth and to train."
        ) from error

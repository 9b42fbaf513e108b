"""A score of a gene set at spots: a weighted sum of genes that is shown like a gene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..expression.panel import Gene, Panel


@dataclass(frozen=True)
class GeneSetScore:
    """The mean of a set's genes minus the mean of control genes of similar level.

    Attributes
    ----------
    symbol : str
        By which it is shown and chosen, such as "HYPOXIA score".
    genes : tuple of str
        Those of the set that are in the panel.
    controls : tuple of str
        Other genes of the panel of similar level.
    missing : tuple of str
        Genes of the set that are not in the panel.
    """

    symbol: str
    genes: tuple[str, ...]
    controls: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def as_gene(self) -> Gene:
        """The entry in lists of genes."""
        total = len(self.genes) + len(self.missing)
        return Gene(self.symbol, name=f"gene set, {len(self.genes)} of its {total} genes")

    @property
    def formula(self) -> str:
        """How it is computed, for legends."""
        return f"mean of {len(self.genes)} genes minus mean of {len(self.controls)} of like level"

    def is_in(self, panel: Panel) -> bool:
        """Return whether a panel has all of its genes."""
        return all(symbol in panel for symbol in (*self.genes, *self.controls))

    def columns(self, panel: Panel) -> list[int]:
        """Return the columns of its genes, then those of its controls.

        Raises
        ------
        SpotsError
            If the panel lacks one of them.
        """
        return panel.rows((*self.genes, *self.controls))

    def combine(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Compute scores (N,) of values (N, K) in the order of `columns`; NaN stays NaN."""
        split = len(self.genes)
        means = values[:, :split].mean(axis=1), values[:, split:].mean(axis=1)
        return np.asarray(means[0] - means[1], np.float32)

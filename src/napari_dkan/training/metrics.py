"""How good a prediction is: correlation per gene and section, and errors (dkan-method.md, 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 50  # genes in HPG, HEG and HVG
Array = NDArray[np.floating]


def gene_pcc(
    predicted: NDArray[np.floating], measured: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Pearson correlation of each gene over the spots of one section, (N, G) twice -> (G,).

    NaN where a gene is constant in either: it has no correlation.
    """
    p = np.asarray(predicted, dtype=np.float64)
    m = np.asarray(measured, dtype=np.float64)
    constant = (np.ptp(p, axis=0) < 1e-9) | (np.ptp(m, axis=0) < 1e-9)
    p, m = p - p.mean(axis=0), m - m.mean(axis=0)
    norm = np.sqrt((p**2).sum(axis=0) * (m**2).sum(axis=0))
    out = np.full(p.shape[1], np.nan)
    np.divide((p * m).sum(axis=0), norm, out=out, where=~constant)
    return out


@dataclass(frozen=True)
class Scores:
    """One method over the test sections.

    sections : their names, in the order of the rows below.
    pcc : (S, G), NaN where a gene is constant in a section.
    mse, mae : (S,) means over spots and genes.
    heg, hvg : rows of the 50 genes of highest mean and highest variance of the test labels.
    """

    sections: tuple[str, ...]
    pcc: NDArray[np.float64]
    mse: NDArray[np.float64]
    mae: NDArray[np.float64]
    heg: NDArray[np.int64]
    hvg: NDArray[np.int64]

    @property
    def per_gene(self) -> NDArray[np.float64]:
        """(G,) mean over the sections in which the gene has a correlation, else NaN."""
        known = ~np.isnan(self.pcc)
        total = np.where(known, self.pcc, 0.0).sum(axis=0)
        out = np.full(self.pcc.shape[1], np.nan)
        np.divide(total, known.sum(axis=0), out=out, where=known.any(axis=0))
        return out

    @property
    def undefined(self) -> int:
        """Gene and section pairs without a correlation."""
        return int(np.isnan(self.pcc).sum())

    def summary(self) -> dict[str, Any]:
        """Numbers for reports and cards; a figure that is not defined is None."""
        genes = self.per_gene
        best = np.sort(genes[~np.isnan(genes)])[::-1][:TOP]
        per_section = {name: _mean(row) for name, row in zip(self.sections, self.pcc, strict=True)}
        return {
            "pcc_all": _mean(genes),
            "pcc_hpg": _mean(best),
            "pcc_heg": _mean(genes[self.heg]),
            "pcc_hvg": _mean(genes[self.hvg]),
            "mse": _mean(self.mse),
            "mae": _mean(self.mae),
            "pcc_all_per_section": per_section,
            "gene_section_pairs_without_pcc": self.undefined,
            "genes_without_pcc": int(np.isnan(genes).sum()),
        }


def score(
    predicted: Mapping[str, NDArray[np.floating]], measured: Mapping[str, NDArray[np.floating]]
) -> Scores:
    """Scores of predictions by section name, each (N, G), against the measured labels."""
    names = tuple(predicted)
    pairs = [(predicted[n], measured[n]) for n in names]
    labels = np.concatenate([m for _, m in pairs])
    return Scores(
        names,
        np.stack([gene_pcc(p, m) for p, m in pairs]),
        np.array([float(np.mean((p - m) ** 2)) for p, m in pairs]),
        np.array([float(np.mean(np.abs(p - m))) for p, m in pairs]),
        _top(labels.mean(axis=0)),
        _top(labels.var(axis=0)),
    )


def _top(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")[:TOP].astype(np.int64)


def _mean(values: NDArray[np.floating] | Sequence[float]) -> float | None:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return round(float(known.mean()), 4) if len(known) else None

"""Prediction metrics: correlation per gene and section, and errors (dkan-method.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_TOP_GENES = 50  # genes in HPG, HEG and HVG
FloatingArray = NDArray[np.floating]


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
class PredictionScores:
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
    def pcc_per_gene(self) -> NDArray[np.float64]:
        """(G,) mean over the sections in which the gene has a correlation, else NaN."""
        known = ~np.isnan(self.pcc)
        total = np.where(known, self.pcc, 0.0).sum(axis=0)
        out = np.full(self.pcc.shape[1], np.nan)
        np.divide(total, known.sum(axis=0), out=out, where=known.any(axis=0))
        return out

    @property
    def n_undefined(self) -> int:
        """Gene and section pairs without a correlation."""
        return int(np.isnan(self.pcc).sum())

    def to_summary(self) -> dict[str, Any]:
        """Numbers for reports and cards; a figure that is not defined is None."""
        genes = self.pcc_per_gene
        best = np.sort(genes[~np.isnan(genes)])[::-1][:N_TOP_GENES]
        per_section = {
            name: _rounded_nanmean(row) for name, row in zip(self.sections, self.pcc, strict=True)
        }
        return {
            "pcc_all": _rounded_nanmean(genes),
            "pcc_hpg": _rounded_nanmean(best),
            "pcc_heg": _rounded_nanmean(genes[self.heg]),
            "pcc_hvg": _rounded_nanmean(genes[self.hvg]),
            "mse": _rounded_nanmean(self.mse),
            "mae": _rounded_nanmean(self.mae),
            "pcc_all_per_section": per_section,
            "gene_section_pairs_without_pcc": self.n_undefined,
            "genes_without_pcc": int(np.isnan(genes).sum()),
        }


def score_predictions(
    predicted: Mapping[str, NDArray[np.floating]], measured: Mapping[str, NDArray[np.floating]]
) -> PredictionScores:
    """Scores of predictions by section name, each (N, G), against the measured labels."""
    names = tuple(predicted)
    pairs = [(predicted[n], measured[n]) for n in names]
    labels = np.concatenate([m for _, m in pairs])
    return PredictionScores(
        names,
        np.stack([gene_pcc(p, m) for p, m in pairs]),
        np.array([float(np.mean((p - m) ** 2)) for p, m in pairs]),
        np.array([float(np.mean(np.abs(p - m))) for p, m in pairs]),
        _top_gene_rows(labels.mean(axis=0)),
        _top_gene_rows(labels.var(axis=0)),
    )


def _top_gene_rows(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")[:N_TOP_GENES].astype(np.int64)


def _rounded_nanmean(values: NDArray[np.floating] | Sequence[float]) -> float | None:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return round(float(known.mean()), 4) if len(known) else None

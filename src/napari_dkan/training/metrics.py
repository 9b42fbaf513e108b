"""Prediction metrics: correlation per gene and section, and squared and absolute errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_TOP_GENES = 50  # genes in HPG, HEG and HVG
FloatingArray = NDArray[np.floating]


def gene_pcc(predicted: FloatingArray, measured: FloatingArray) -> NDArray[np.float64]:
    """Compute the Pearson correlation of each gene over the spots of one section.

    Parameters
    ----------
    predicted, measured
        (N, G) values of N spots and G genes.

    Returns
    -------
    (G,) correlations, NaN where a gene is constant in either array.
    """
    p = np.asarray(predicted, dtype=np.float64)
    m = np.asarray(measured, dtype=np.float64)
    constant = (np.ptp(p, axis=0) < 1e-9) | (np.ptp(m, axis=0) < 1e-9)
    p, m = p - p.mean(axis=0), m - m.mean(axis=0)
    norm = np.sqrt((p**2).sum(axis=0) * (m**2).sum(axis=0))
    out = np.full(p.shape[1], np.nan)
    np.divide((p * m).sum(axis=0), norm, out=out, where=~constant)
    return out


def mean_gene_pcc(predicted: FloatingArray, measured: FloatingArray) -> float:
    """Average `gene_pcc` over the genes that are measured and vary; NaN when there is none."""
    is_measured = ~np.isnan(measured).all(axis=0)
    pcc = gene_pcc(predicted[:, is_measured], measured[:, is_measured])
    return nanmean(pcc)


@dataclass(frozen=True)
class PredictionScores:
    """Scores of one method over the test sections.

    Attributes
    ----------
    sections
        Names of the S sections, in the order of the rows below.
    pcc
        (S, G) correlations, NaN where a gene is constant in a section.
    mse, mae
        (S,) means over spots and genes.
    heg, hvg
        Columns of the 50 genes of highest mean and of highest variance of the test labels.
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
        return nanmean_over_rows(self.pcc)

    @property
    def n_undefined(self) -> int:
        """Number of gene and section pairs without a correlation."""
        return int(np.isnan(self.pcc).sum())

    def to_summary(self) -> dict[str, Any]:
        """Summarize for reports and cards; a number that is not defined is None."""
        genes = self.pcc_per_gene
        best = np.sort(genes[~np.isnan(genes)])[::-1][:N_TOP_GENES]
        per_section = {
            name: nanmean_or_none(row) for name, row in zip(self.sections, self.pcc, strict=True)
        }
        return {
            "pcc_all": nanmean_or_none(genes),
            "pcc_hpg": nanmean_or_none(best),
            "pcc_heg": nanmean_or_none(genes[self.heg]),
            "pcc_hvg": nanmean_or_none(genes[self.hvg]),
            "mse": nanmean_or_none(self.mse),
            "mae": nanmean_or_none(self.mae),
            "pcc_all_per_section": per_section,
            "gene_section_pairs_without_pcc": self.n_undefined,
            "genes_without_pcc": int(np.isnan(genes).sum()),
        }


def score_predictions(
    predicted: Mapping[str, FloatingArray], measured: Mapping[str, FloatingArray]
) -> PredictionScores:
    """Score predictions (N, G) by section name against the labels of these sections."""
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


def _top_gene_rows(values: FloatingArray) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")[:N_TOP_GENES].astype(np.int64)


def nanmean(values: ArrayLike) -> float:
    """Average the values that are not NaN; NaN when there is none, without a warning."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if len(defined) else math.nan


def nanmean_over_rows(values: FloatingArray) -> NDArray[np.float64]:
    """Average along the first axis without NaN; NaN when there is none, without a warning."""
    is_defined = ~np.isnan(values)
    count = is_defined.sum(axis=0)
    out = np.full(values.shape[1:], np.nan)
    np.divide(np.where(is_defined, values, 0).sum(axis=0), count, out=out, where=count > 0)
    return out


def round_or_none(value: float, digits: int) -> float | None:
    """Round for a JSON file; None for a number that is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None


def nanmean_or_none(values: FloatingArray | Sequence[float]) -> float | None:
    """Average the values that are not NaN, to four digits; None when there is none."""
    return round_or_none(nanmean(values), 4)

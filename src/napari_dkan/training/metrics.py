"""Correlation per gene, and means and rounding of values that may be undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

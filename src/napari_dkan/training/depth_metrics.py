"""Metrics that depth cannot earn: depth-partial correlation and deviance of the counts.

Labels are logarithms of proportions averaged over neighbours. Where few molecules are caught,
the label of every gene moves with the number of molecules, so a prediction that follows tissue
density correlates with most labels without knowing any gene (docs/method.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..expression.label_scale import LabelScale
from .metrics import FloatingArray, gene_pcc

MIN_SPOTS_FOR_PARTIAL = 4  # three spots leave one degree of freedom, so a correlation of 1
# Relative norm of a residual below which a variable is a function of depth and rounding.
_MIN_RESIDUAL = 1e-5
# Smallest predicted proportion, a tenth of a count per 10,000: 0 would make one count impossible.
_MIN_PROPORTION = 1e-5

Float64Array = NDArray[np.float64]


def regress_out_depth(values: FloatingArray, depth: FloatingArray) -> Float64Array:
    """Return the residuals of values (N, G) after least squares on (1, depth).

    Where the depth is the same at all spots, only the mean is removed.
    """
    v = np.asarray(values, np.float64)
    d = np.asarray(depth, np.float64)
    v, d = v - v.mean(axis=0), d - d.mean()
    square = float(d @ d)
    if square > 1e-18 * len(d):
        v = v - np.outer(d, d @ v / square)
    return np.asarray(v, np.float64)


def depth_partial_pcc(
    predicted: FloatingArray, measured: FloatingArray, depth: FloatingArray
) -> Float64Array:
    """Compute the partial correlation of each gene, given the depth of the spots.

    It is the Pearson correlation of the residuals of prediction and label after both are
    regressed on the depth (Yule, Proceedings of the Royal Society A 79, 182, 1907).

    Parameters
    ----------
    predicted, measured
        (N, G) values of N spots and G genes.
    depth
        (N,) smoothed logarithms of the panel totals, see `PanelCounts.depth`.

    Returns
    -------
    (G,) correlations. A prediction that varies with the depth and nothing else scores 0, since
    it knows nothing of the gene. NaN where prediction or label is constant, where the label is a
    function of the depth, and for fewer than four spots.
    """
    p, m = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if len(p) < MIN_SPOTS_FOR_PARTIAL:
        return np.full(p.shape[1], np.nan)
    partial = gene_pcc(regress_out_depth(p, depth), regress_out_depth(m, depth))
    constant = (np.ptp(p, axis=0) < 1e-9) | (np.ptp(m, axis=0) < 1e-9)
    partial[is_explained_by_depth(p, depth)] = 0.0
    partial[constant | is_explained_by_depth(m, depth) | ~np.isfinite(p + m).all(axis=0)] = np.nan
    return partial


def is_explained_by_depth(values: FloatingArray, depth: FloatingArray) -> NDArray[np.bool_]:
    """Return which columns (G,) of values (N, G) are linear in the depth, up to rounding."""
    v = np.asarray(values, np.float64)
    total = np.linalg.norm(v - v.mean(axis=0), axis=0)
    residual = np.linalg.norm(regress_out_depth(v, depth), axis=0)
    return np.asarray(residual <= _MIN_RESIDUAL * total)


def depth_alone_pcc(measured: FloatingArray, depth: FloatingArray) -> Float64Array:
    """Compute the correlation (G,) of the depth (N,), as the prediction, with each label (N, G)."""
    return gene_pcc(predict_with_depth(depth, measured.shape[1]), measured)


def predict_with_depth(depth: FloatingArray, n_genes: int) -> FloatingArray:
    """Return the depth (N,) as the prediction (N, G) of every gene."""
    return np.repeat(np.asarray(depth)[:, None], n_genes, axis=1)


def proportions_from_labels(values: FloatingArray, scale: LabelScale) -> Float64Array:
    """Convert predicted labels (N, G) to proportions of the panel that add up to 1 at each spot.

    The logarithm is inverted; a proportion is at least 1e-5.
    """
    exponent = np.asarray(values, np.float64) * np.log(scale.base)
    # 700: the logarithm of the largest double
    odds = np.maximum(np.expm1(np.clip(exponent, 0, 700)), _MIN_PROPORTION * scale.target_sum)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)


def multinomial_deviance(counts: FloatingArray, proportions: FloatingArray) -> Float64Array:
    """Compute the deviance (N,) of counts from expected proportions, given each spot's total.

    ``2 sum_g c_g log(c_g / (t p_g))`` with t the total of the spot: twice the log likelihood
    ratio against the observed proportions (McCullagh and Nelder, Generalized Linear Models, 2nd
    edition, 1989, section 5.5; for gene counts Townes et al., Genome Biology 20, 295, 2019).

    Parameters
    ----------
    counts
        (N, G) counts.
    proportions
        (N, G) or (G,) positive, with a sum of 1 over the genes.
    """
    from scipy.special import xlogy

    c = np.asarray(counts, np.float64)
    expected = c.sum(axis=1, keepdims=True) * np.asarray(proportions, np.float64)
    ratio = np.divide(c, expected, out=np.ones_like(c), where=expected > 0)
    return np.asarray(2 * xlogy(c, ratio).sum(axis=1), np.float64)


def deviance_explained(
    counts: FloatingArray, proportions: FloatingArray, mean_profile: FloatingArray
) -> float:
    """Compute the share of the deviance from a mean profile that predicted proportions explain.

    1 for the observed proportions, 0 for the mean profile, negative for something worse. It
    depends on counts alone, not on logarithm or smoothing of the labels.

    Parameters
    ----------
    counts
        (N, G) raw counts.
    proportions
        (N, G) predicted proportions.
    mean_profile
        (G,) proportions of the genes in the training sections.

    Returns
    -------
    The share; NaN where the mean profile explains everything.
    """
    profile = np.maximum(np.asarray(mean_profile, np.float64), _MIN_PROPORTION)
    unexplained = float(multinomial_deviance(counts, profile / profile.sum()).sum())
    if unexplained <= 0:
        return float("nan")
    return 1 - float(multinomial_deviance(counts, proportions).sum()) / unexplained

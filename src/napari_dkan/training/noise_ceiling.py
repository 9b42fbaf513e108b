"""Noise ceiling: how well a perfect predictor could do, given the counting noise of a section.

The counts of every spot are split at random into two halves, which are independent measurements
of the same tissue if counts are Poisson. How well the labels of the halves agree says how much of
a label is signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..expression.count_thinning import thin_counts
from ..expression.label_scale import PanelCounts
from .depth_metrics import Float64Array, depth_partial_pcc
from .metrics import nanmean, nanmean_over_rows

N_CEILING_DRAWS = 5
CEILING_SEED = 0
# Half the width of the interval of the draws, in standard deviations of a draw. With 2, 6 to
# 16 % of the genes without any signal pass (benchmarks/noise_ceiling.py).
_INTERVAL_STDS = 2.0


@dataclass(frozen=True, eq=False)
class NoiseCeiling:
    """Largest depth-partial PCC that is to be expected of each gene.

    Attributes
    ----------
    values
        (G,) ceilings, 0 to 1; NaN where a half has no variation besides the depth.
    is_judged
        (G,) whether the two halves agree by more than their random split: the interval of the
        draws is above 0. A gene that is not judged has too few counts here to tell a good
        prediction from a bad one.
    """

    values: Float64Array
    is_judged: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        """Mean over the genes that have a ceiling; NaN when there is none."""
        return nanmean(self.values)

    def take(self, genes: NDArray[np.integer]) -> NoiseCeiling:
        """Select genes."""
        return NoiseCeiling(self.values[genes], self.is_judged[genes])


def compute_noise_ceiling(
    counts: PanelCounts,
    rows: NDArray[np.integer] | None = None,
    n_draws: int = N_CEILING_DRAWS,
    seed: int = CEILING_SEED,
) -> NoiseCeiling:
    """Estimate the ceiling of each gene from random halves of the counts.

    Each count c is split into h ~ Binomial(c, 1/2) and c - h. Labels are made of both by the
    recipe of the section's, and the depth-partial correlation r of the two is taken gene by gene.
    The mean of the draws, at least 0, is stepped up from half to full depth by the formula of
    Spearman and Brown, 2 r / (1 + r) (British Journal of Psychology 3, 271 and 296, 1910). That
    is the reliability of the label; its square root is the correlation of the label with the
    noise-free one, which no prediction can be expected to exceed.

    Parameters
    ----------
    counts
        Panel counts of the labelled spots of a section.
    rows
        Spots over which the correlations are taken, all by default; labels are averaged over the
        neighbours among all spots.
    n_draws
        Number of random splits.
    seed
        Seed of the splits.
    """
    rows = np.arange(len(counts)) if rows is None else np.asarray(rows)
    rng = np.random.default_rng(seed)
    agreement = np.stack([_halves_pcc(counts, rows, rng) for _ in range(n_draws)])
    mean = nanmean_over_rows(agreement)
    r = np.clip(mean, 0, 1)
    defined = np.isfinite(agreement).all(axis=0)
    half_width = np.where(defined, _INTERVAL_STDS * np.std(agreement, axis=0, ddof=1), np.inf)
    return NoiseCeiling(np.sqrt(2 * r / (1 + r)), np.asarray(mean - half_width > 0))


def _halves_pcc(
    counts: PanelCounts, rows: NDArray[np.integer], rng: np.random.Generator
) -> Float64Array:
    """Split the counts and correlate the labels (G,) of both halves over the rows."""
    half = thin_counts(counts.values, 0.5, rng)
    labels, has_label = zip(
        *(_half_labels(counts, values) for values in (half, np.rint(counts.values) - half)),
        strict=True,
    )
    used = rows[has_label[0][rows] & has_label[1][rows]]
    return depth_partial_pcc(labels[0][used], labels[1][used], counts.depth[used])


def _half_labels(
    counts: PanelCounts, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels (N, G) of a half, NaN at spots without a count in it, and which spots have one."""
    has_label = values.sum(axis=1) > 0
    labels = np.full(values.shape, np.nan, np.float32)
    if has_label.any():
        labels[has_label] = PanelCounts(
            values[has_label], counts.array[has_label], counts.scale
        ).labels()
    return labels, has_label


def share_of_attainable(partial_pcc: Float64Array, ceiling: Float64Array) -> float:
    """Divide the mean depth-partial PCC by the mean ceiling, over genes that have both.

    Parameters
    ----------
    partial_pcc, ceiling
        (G,) values of each gene, NaN where undefined.

    Returns
    -------
    The share; NaN where no gene has both, or the ceiling is 0.
    """
    both = np.isfinite(partial_pcc) & np.isfinite(ceiling)
    attainable = nanmean(ceiling[both])
    return float("nan") if not attainable > 0 else nanmean(partial_pcc[both]) / attainable

"""Differences between the methods of a cross-validation, with intervals by a block bootstrap.

The same blocks of spots are drawn for both methods of a pair, so what is hard to predict for both
does not widen the interval. The blocks lie within the test sections: the intervals hold for other
tissue of these sections, and not for other patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...model.methods.method_configs import DKAN_METHOD
from ...spatial.spots import Spots
from ..block_bootstrap import ResampledPcc, resample_pcc, student_t_factor
from ..metrics import nanmean, round_or_none
from ..prediction_scores import DEPTH_ALONE
from .crossval_result import CrossValidationResult

REFERENCE_METHODS = ("ridge", DKAN_METHOD)
EXPLANATION = (
    "depth-partial PCC and its differences, [value, low, high] of 95 % intervals: whole blocks of "
    "spots are resampled within each test section, the same for both methods of a pair; mean over "
    "genes, then seeds, then sections. They hold for other tissue of these sections, not for other "
    "patients"
)

# By section, one for each seed.
Draws = dict[str, list[ResampledPcc]]


def compute_paired_differences(
    result: CrossValidationResult, references: Sequence[str] = REFERENCE_METHODS
) -> dict[str, Any]:
    """Compute the mean depth-partial PCC of each method, and its difference to others.

    Parameters
    ----------
    references
        Names of the methods that the others are compared with.

    Returns
    -------
    Plain JSON: "explained", "mean" and for each reference method that is there "minus NAME", with
    [value, low, high] by method. {} where the counts of the sections are not known.
    """
    if not result.references:
        return {}
    draws = {m: _resample(result, m) for m in result.methods if m != DEPTH_ALONE}
    draws = {m: d for m, d in draws.items() if all(r.usable.any() for s in d.values() for r in s)}
    return {
        "explained": EXPLANATION,
        "mean": {m: _estimate(d, None) for m, d in draws.items()},
        **{
            f"minus {reference}": {
                m: _estimate(d, draws[reference]) for m, d in draws.items() if m != reference
            }
            for reference in references
            if reference in draws
        },
    }


def _resample(result: CrossValidationResult, method: str) -> Draws:
    draws: Draws = {}
    for fold in result.folds:
        for by_section in fold.predictions[method].values():
            for name, predicted in by_section.items():
                reference = result.references[name]
                spots = Spots(np.asarray(reference.counts.array, np.float64))
                resampled = resample_pcc(
                    predicted, fold.labels[name], spots, depth=reference.counts.depth
                )
                draws.setdefault(name, []).append(resampled)
    return draws


def _estimate(draws: Draws, reference: Draws | None) -> list[float | None]:
    """Return value, low and high of the mean, or of the difference to a reference method."""
    values, variances, degrees = [], [], 0
    for name, by_seed in draws.items():
        others = [None] * len(by_seed) if reference is None else reference[name]
        # a baseline has one prediction for all seeds
        pairs = [(r, others[i % len(others)]) for i, r in enumerate(by_seed)]
        if len(others) > len(by_seed):
            pairs = [(by_seed[i % len(by_seed)], o) for i, o in enumerate(others)]
        means = [_mean_over_genes(one, other) for one, other in pairs]
        n_blocks = by_seed[0].n_blocks
        values.append(float(np.mean([observed for observed, _ in means])))
        spread = float(np.mean([resampled for _, resampled in means], axis=0).var())
        variances.append(spread * n_blocks / (n_blocks - 1))
        degrees += n_blocks - 1
    half_width = student_t_factor(degrees) * np.sqrt(sum(variances)) / len(values)
    mean = nanmean(values)
    return [round_or_none(v, 4) for v in (mean, mean - half_width, mean + half_width)]


def _mean_over_genes(
    one: ResampledPcc, other: ResampledPcc | None
) -> tuple[float, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return the mean over the genes that both have: of all spots, and of each resample (R,)."""
    genes = one.usable if other is None else one.usable & other.usable
    observed, resampled = one.observed[genes], one.pcc[:, genes]
    if other is not None:
        observed, resampled = observed - other.observed[genes], resampled - other.pcc[:, genes]
    return float(observed.mean()), np.nanmean(resampled, axis=1)


def format_paired_differences(paired: Mapping[str, Any]) -> str:
    """Format the differences to each reference method, one line for each method."""
    lines = []
    for heading, by_method in paired.items():
        if heading.startswith("minus "):
            lines.append(f"Depth-partial PCC {heading} (95 % interval over blocks of spots):")
            lines += [f"{m:<14} {format_estimate(e)}" for m, e in by_method.items()]
    return "\n".join(lines)


def format_estimate(estimate: list[float | None]) -> str:
    """Format a difference as ``+0.012 (-0.003 to +0.027)``."""
    value, low, high = ("-" if v is None else f"{v:+.3f}" for v in estimate)
    return f"{value} ({low} to {high})"

"""All genes of a comparison together: the summary and the verdict in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..model.methods.method_configs import DKAN_METHOD, TITLES
from ..training.block_bootstrap import PccIntervals
from ..training.metrics import nanmean_or_none
from ..training.prediction_scores import (
    PredictionScores,
    score_depth_alone,
    score_predictions,
)
from .gene_metrics import BesideDepth, DkanRidgePair, FloatArray, held_out_column

_NAN = float("nan")


@dataclass(frozen=True)
class MethodMetrics:
    """Metrics of one method over all genes, as in `napari-dkan evaluate`; None where undefined.

    Attributes
    ----------
    pcc_all, pcc_hpg, pcc_heg, pcc_hvg : float or None
        Mean PCC over all genes, and over the 50 genes best predicted, of highest mean and of
        highest variance of the labels (all genes where there are fewer).
    n_genes : int
        Number of genes that have a correlation.
    depth_partial_pcc, share_of_attainable, deviance_explained : float or None
        Scores that depth cannot earn; None also where they were not recorded.
    """

    pcc_all: float | None = None
    pcc_hpg: float | None = None
    pcc_heg: float | None = None
    pcc_hvg: float | None = None
    mse: float | None = None
    n_genes: int = 0
    depth_partial_pcc: float | None = None
    share_of_attainable: float | None = None
    deviance_explained: float | None = None


@dataclass(frozen=True)
class ComparisonSummary:
    """All genes together: DKAN, ridge on the same spots, and what the card expects of both.

    Attributes
    ----------
    pcc_low, pcc_high : float
        95 % interval of the `pcc_all` of DKAN over resampled blocks of spots; NaN when there are
        too few blocks.
    n_better_than_ridge : int
        Number of genes on which the depth-partial correlation of DKAN is higher (the plain one
        where the counts are not known).
    n_compared : int
        Number of genes on which both have it and that can be judged.
    seen_in_training : bool
        Whether the checkpoint was trained on this slide.
    partial_low, partial_high : float
        The interval of the mean depth-partial PCC of DKAN.
    ceiling : float or None
        Mean ceiling of the depth-partial PCC.
    n_not_judged : int
        Number of genes that cannot be judged here.
    depth_alone : MethodMetrics or None
        The measured depth as the prediction of every gene.
    method : str
        Name of the checkpoint's method, DKAN unless it says another.
    """

    n_spots: int
    n_genes: int
    dkan: MethodMetrics
    ridge: MethodMetrics | None
    card_dkan: MethodMetrics | None
    card_ridge: MethodMetrics | None
    pcc_low: float
    pcc_high: float
    n_better_than_ridge: int
    n_compared: int
    seen_in_training: bool
    partial_low: float = _NAN
    partial_high: float = _NAN
    ceiling: float | None = None
    n_not_judged: int = 0
    depth_alone: MethodMetrics | None = None
    method: str = TITLES[DKAN_METHOD]

    def metrics_by_method(self) -> dict[str, MethodMetrics]:
        """Return the metrics that exist, by the displayed name of the method."""
        metrics_by_name = {
            self.method: self.dkan,
            "ridge": self.ridge,
            "depth alone": self.depth_alone,
            f"{self.method}, held-out sections (card)": self.card_dkan,
            "ridge, held-out sections (card)": self.card_ridge,
        }
        return {name: found for name, found in metrics_by_name.items() if found is not None}

    def format_verdict(self) -> str:
        """Return the verdict in a few sentences, decided beside depth where that is known."""
        over = f"{self.n_genes} gene{'s' * (self.n_genes != 1)} and {self.n_spots} spots"
        if self.dkan.pcc_all is None:
            return f"No gene has a correlation over {over}: measured or predicted is constant."
        plain = f"PCC-ALL {self.dkan.pcc_all:.2f}"
        plain += _format_interval(self.pcc_low, self.pcc_high)
        if self.dkan.depth_partial_pcc is None:
            text = f"{plain} over {over}{self._compare_with_ridge('pcc_all')}"
            if self.card_dkan is not None and self.card_dkan.pcc_all is not None:
                text += f"; the card expects {self.card_dkan.pcc_all:.2f}"
        else:
            text = f"Depth-partial PCC {self.dkan.depth_partial_pcc:.2f}"
            text += _format_interval(self.partial_low, self.partial_high)
            if self.ceiling is not None:
                text += f" of at most {self.ceiling:.2f}"
            text += f" over {over}{self._compare_with_ridge('depth_partial_pcc')}"
            text += f"{self._format_expected()}. With depth included: {plain}"
            if self.depth_alone is not None and self.depth_alone.pcc_all is not None:
                text += f", depth alone {self.depth_alone.pcc_all:.2f}"
            if self.n_not_judged:
                genes = f"{self.n_not_judged} gene{'s' * (self.n_not_judged != 1)}"
                text += f". {genes} cannot be judged here: too few counts"
        if self.seen_in_training:
            text += ". This slide was trained on: no measure of quality"
        return text + "."

    def _compare_with_ridge(self, figure: str) -> str:
        ridge = None if self.ridge is None else getattr(self.ridge, figure)
        if ridge is None:
            return ""
        better = f"{self.method} better on {self.n_better_than_ridge} of {self.n_compared} genes"
        return f"; ridge {ridge:.2f}, {better}"

    def _format_expected(self) -> str:
        """What the card expects; PCC-ALL where it does not record the depth-partial figure."""
        card = self.card_dkan
        if card is None or card.pcc_all is None:
            return ""
        if card.depth_partial_pcc is not None:
            return f"; the card expects {card.depth_partial_pcc:.2f}"
        return f"; the card expects PCC-ALL {card.pcc_all:.2f} and does not record this figure"


def _format_interval(low: float, high: float) -> str:
    return f" (95 % {low:.2f} to {high:.2f})" if np.isfinite(low) else ""


def summarize_comparison(
    symbols: Sequence[str],
    predicted: FloatArray,
    measured: FloatArray,
    intervals: PccIntervals,
    ridge: FloatArray | None = None,
    held_out_pcc: Mapping[str, DkanRidgePair] | None = None,
    held_out_mse: DkanRidgePair = (None, None),
    seen_in_training: bool = False,
    beside_depth: BesideDepth | None = None,
    method: str = TITLES[DKAN_METHOD],
) -> ComparisonSummary:
    """Summarize all genes with the code of `napari-dkan evaluate`.

    Parameters are those of `compute_gene_metrics`, and `held_out_mse`, the MSE of (DKAN, ridge)
    on held-out sections, and the displayed name of the checkpoint's method.
    """
    labels = {"section": measured}
    references = {} if beside_depth is None else {"section": beside_depth.reference}
    dkan = score_predictions({"section": predicted}, labels, references)
    ridge_scores = (
        None if ridge is None else score_predictions({"section": ridge}, labels, references)
    )
    dkan_pcc, is_judged = _deciding_pcc(dkan), np.ones(len(symbols), bool)
    ridge_pcc = (
        np.full(len(dkan_pcc), _NAN) if ridge_scores is None else _deciding_pcc(ridge_scores)
    )
    if beside_depth is not None:
        is_judged = beside_depth.reference.ceiling.is_judged
    both = np.isfinite(dkan_pcc) & np.isfinite(ridge_pcc) & is_judged
    held_out_partial = {} if beside_depth is None else beside_depth.held_out_partial
    card_dkan, card_ridge = (
        _metrics_from_card(
            held_out_column(symbols, held_out_pcc, column),
            held_out_column(symbols, held_out_partial, column),
            mse,
            dkan,
        )
        for column, mse in enumerate(held_out_mse)
    )
    partial_interval = (_NAN, _NAN)
    if beside_depth is not None:
        partial_interval = beside_depth.intervals.mean_low, beside_depth.intervals.mean_high
    return ComparisonSummary(
        n_spots=len(measured),
        n_genes=len(symbols),
        dkan=_to_method_metrics(dkan),
        ridge=None if ridge_scores is None else _to_method_metrics(ridge_scores),
        card_dkan=card_dkan,
        card_ridge=card_ridge,
        pcc_low=intervals.mean_low,
        pcc_high=intervals.mean_high,
        n_better_than_ridge=int((dkan_pcc[both] > ridge_pcc[both]).sum()),
        n_compared=int(both.sum()),
        seen_in_training=seen_in_training,
        partial_low=partial_interval[0],
        partial_high=partial_interval[1],
        ceiling=dkan.to_summary().get("ceiling"),
        n_not_judged=int((~is_judged).sum()),
        depth_alone=_to_method_metrics(score_depth_alone(labels, references))
        if references
        else None,
        method=method,
    )


def _deciding_pcc(scores: PredictionScores) -> NDArray[np.float64]:
    """Depth-partial PCC (G,), the plain one where the counts are not known."""
    return scores.pcc_per_gene if scores.depth is None else scores.depth.partial_per_gene


def _to_method_metrics(scores: PredictionScores) -> MethodMetrics:
    found = scores.to_summary()
    return MethodMetrics(
        found["pcc_all"],
        found["pcc_hpg"],
        found["pcc_heg"],
        found["pcc_hvg"],
        found["mse"],
        scores.pcc.shape[1] - found["genes_without_pcc"],
        found.get("depth_partial_pcc"),
        found.get("share_of_attainable"),
        found.get("deviance_explained"),
    )


def _metrics_from_card(
    pcc: NDArray[np.float64],
    partial: NDArray[np.float64],
    mse: float | None,
    scores: PredictionScores,
) -> MethodMetrics | None:
    """The card's metrics over the genes of this section, with the HEG and HVG of this section."""
    if np.isnan(pcc).all():
        return None
    errors = np.array([mse], float)
    same_genes = PredictionScores(
        ("card",), pcc[None], errors, errors * _NAN, scores.heg, scores.hvg
    )
    return replace(_to_method_metrics(same_genes), depth_partial_pcc=nanmean_or_none(partial))

"""Metrics of each gene and their summary: DKAN, the ridge baseline, and the held-out metrics on the checkpoint's card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..training.metrics import PredictionScores, gene_pcc, score_predictions
from .block_bootstrap import PccIntervals, bootstrap_pcc

if TYPE_CHECKING:
    from .comparison import Comparison


FloatArray = NDArray[np.floating]
_NAN = float("nan")


@dataclass(frozen=True)
class GeneMetrics:
    """Figures of one gene over the spots of a section; NaN where one is not defined.

    pcc, spearman : correlations of measured and predicted. low, high : 95 % interval of `pcc`
        from resampling blocks of 6 x 6 spots, since neighbours are not independent.
    mse, mean, variance, predicted_mean, predicted_variance : on the label scale.
    zeros : share of spots without a count of the gene, before smoothing.
    ridge_* : the ridge baseline on the same spots. expected_* : PCC on sections that were held
        out of the training, from the card of the checkpoint.
    """

    symbol: str
    n_spots: int
    pcc: float
    low: float
    high: float
    spearman: float
    mse: float
    mean: float
    variance: float
    predicted_mean: float
    predicted_variance: float
    zeros: float
    ridge_pcc: float = _NAN
    ridge_spearman: float = _NAN
    ridge_mse: float = _NAN
    expected_pcc: float = _NAN
    expected_ridge_pcc: float = _NAN


@dataclass(frozen=True)
class MethodMetrics:
    """One method over all genes, as `napari-dkan evaluate` gives them; None where undefined.

    pcc_hpg, pcc_heg, pcc_hvg : over the 50 genes best predicted, of highest mean and of highest
    variance of the labels (all of them where there are fewer).
    """

    pcc_all: float | None = None
    pcc_hpg: float | None = None
    pcc_heg: float | None = None
    pcc_hvg: float | None = None
    mse: float | None = None
    n_genes: int = 0  # that have a correlation


@dataclass(frozen=True)
class ComparisonSummary:
    """All genes together: DKAN, ridge on the same spots, and the card's expectation of both.

    low, high : 95 % interval of DKAN's pcc_all over resampled blocks of spots, NaN when there
        are too few blocks.
    better_than_ridge : genes on which DKAN's correlation is higher; `compared` have both.
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

    def metrics_by_method(self) -> dict[str, MethodMetrics]:
        """What there is, by its name for people."""
        each = {
            "DKAN": self.dkan,
            "ridge": self.ridge,
            "DKAN, held-out sections (card)": self.card_dkan,
            "ridge, held-out sections (card)": self.card_ridge,
        }
        return {name: figures for name, figures in each.items() if figures is not None}

    def format_verdict(self) -> str:
        """A plain verdict."""
        over = f"{self.n_genes} gene{'s' * (self.n_genes != 1)} and {self.n_spots} spots"
        if self.dkan.pcc_all is None:
            return f"No gene has a correlation over {over}: measured or predicted is constant."
        said = [f"PCC-ALL {self.dkan.pcc_all:.2f}"]
        if np.isfinite(self.pcc_low):
            said.append(f"(95 % {self.pcc_low:.2f} to {self.pcc_high:.2f})")
        said.append(f"over {over}")
        text = " ".join(said)
        if self.ridge is not None and self.ridge.pcc_all is not None:
            text += (
                f"; ridge {self.ridge.pcc_all:.2f}, DKAN better on {self.n_better_than_ridge} of "
                f"{self.n_compared} genes"
            )
        if self.card_dkan is not None and self.card_dkan.pcc_all is not None:
            text += f"; the card expects {self.card_dkan.pcc_all:.2f}"
        if self.seen_in_training:
            text += ". This slide was trained on: no measure of quality"
        return text + "."


def compute_gene_metrics(comparison: Comparison) -> tuple[GeneMetrics, ...]:
    """One row per gene, in panel order; everything vectorised over genes."""
    c = comparison
    measured, predicted = np.asarray(c.measured, float), np.asarray(c.predicted, float)
    nothing = np.full(len(c.panel), _NAN)
    ridge = nothing, nothing, nothing
    if c.ridge is not None:
        ridge = (
            gene_pcc(c.ridge, measured),
            spearman_per_gene(c.ridge, measured),
            ((c.ridge - measured) ** 2).mean(axis=0),
        )
    expected = np.array(
        [
            [_NAN if v is None else v for v in c.held_out_pcc.get(s, (None, None))]
            for s in c.panel.symbols
        ]
    )
    columns = (
        gene_pcc(c.predicted, c.measured),
        c.pcc_intervals.low,
        c.pcc_intervals.high,
        spearman_per_gene(predicted, measured),
        ((predicted - measured) ** 2).mean(axis=0),
        measured.mean(axis=0),
        measured.var(axis=0),
        predicted.mean(axis=0),
        predicted.var(axis=0),
        c.zero_fraction,
        *ridge,
        *expected.T,
    )
    rows = np.stack([np.asarray(column, float) for column in columns], axis=1).tolist()
    spots = len(measured)
    return tuple(
        GeneMetrics(symbol, spots, *row) for symbol, row in zip(c.panel.symbols, rows, strict=True)
    )


def summarize_comparison(comparison: Comparison) -> ComparisonSummary:
    """The figures of `napari-dkan evaluate`, by the same code, and the same for the others."""
    c = comparison
    labels = {c.name: c.measured}
    dkan = score_predictions({c.name: c.predicted}, labels)
    ridge = None if c.ridge is None else score_predictions({c.name: c.ridge}, labels)
    ours = dkan.pcc_per_gene
    theirs = np.full(len(ours), _NAN) if ridge is None else ridge.pcc_per_gene
    both = np.isfinite(ours) & np.isfinite(theirs)
    return ComparisonSummary(
        n_spots=len(c.measured),
        n_genes=len(c.panel),
        dkan=_to_method_metrics(dkan),
        ridge=None if ridge is None else _to_method_metrics(ridge),
        card_dkan=_metrics_from_card(c, dkan, 0),
        card_ridge=_metrics_from_card(c, dkan, 1),
        pcc_low=c.pcc_intervals.mean_low,
        pcc_high=c.pcc_intervals.mean_high,
        n_better_than_ridge=int((ours[both] > theirs[both]).sum()),
        n_compared=int(both.sum()),
        seen_in_training=c.seen_in_training,
    )


def spearman_per_gene(predicted: FloatArray, measured: FloatArray) -> NDArray[np.float64]:
    """Rank correlation of each gene, (N, G) twice -> (G,); ties share their mean rank."""
    from scipy.stats import rankdata

    return gene_pcc(rankdata(predicted, axis=0), rankdata(measured, axis=0))


def bootstrap_comparison(comparison: Comparison) -> PccIntervals:
    """Intervals of the correlations, from blocks of spots drawn again and again."""
    return bootstrap_pcc(comparison.predicted, comparison.measured, comparison.spots)


def _to_method_metrics(scores: PredictionScores) -> MethodMetrics:
    found = scores.to_summary()
    return MethodMetrics(
        found["pcc_all"],
        found["pcc_hpg"],
        found["pcc_heg"],
        found["pcc_hvg"],
        found["mse"],
        scores.pcc.shape[1] - found["genes_without_pcc"],
    )


def _metrics_from_card(
    c: Comparison, scores: PredictionScores, column: int
) -> MethodMetrics | None:
    """The card's figures over the genes of this section, HEG and HVG being those of here."""
    pcc = np.array([c.held_out_pcc.get(s, (None, None))[column] for s in c.panel.symbols], float)
    if np.isnan(pcc).all():
        return None
    mse = np.array([c.held_out_mse[column]], float)
    same_genes = PredictionScores(("card",), pcc[None], mse, mse * _NAN, scores.heg, scores.hvg)
    return _to_method_metrics(same_genes)

"""What the gene table shows: DKAN's figures, and those of the methods it must be held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .table import MetricColumn, MetricsTableData, make_metric_column, format_metric

if TYPE_CHECKING:
    from ...quality.compare import Comparison
    from ...quality.gene_table import GeneMetrics

INTERVAL_INCLUDES_ZERO = "The 95 % interval does not lie above 0: this gene may not be predicted here at all."
BELOW_RIDGE = "The ridge baseline does better than DKAN on this gene."
NO_VARIANCE = "Measured or predicted is the same at all spots, so there is no correlation."
CARD_BELOW_RIDGE = "On held-out sections DKAN did no better than ridge on this gene."


def make_gene_table(comparison: Comparison) -> MetricsTableData:
    """One row per gene that is both measured and predicted, in the panel's order."""
    table = comparison.metrics_per_gene
    pcc, low, high, ridge = (_metric_values(table, name) for name in ("pcc", "low", "high", "ridge_pcc"))
    expected, expected_ridge = (
        _metric_values(table, name) for name in ("expected_pcc", "expected_ridge_pcc")
    )
    unsure = (low <= 0) | (pcc <= 0)
    constant = np.isnan(pcc)
    below = ridge > pcc
    doubtful = expected_ridge >= expected
    spots = len(comparison.spots)
    columns = (
        MetricColumn(
            "PCC [95 %]",
            f"Pearson correlation of measured and predicted values over {spots:,} spots, with "
            "its 95 % interval (from drawing spatial blocks again and again, since neighbours "
            "are not independent)",
            pcc,
            lambda row: _format_interval(pcc[row], low[row], high[row]),
            unsure,
            INTERVAL_INCLUDES_ZERO,
        ),
        make_metric_column(
            "ridge",
            "PCC of the ridge baseline: a linear model on the same tiles, trained on the same "
            "sections; what DKAN has to beat",
            ridge,
            warning_mask=below,
            warning=BELOW_RIDGE,
        ),
        make_metric_column(
            "card",
            "PCC to be expected: what DKAN reached on held-out sections, from the checkpoint's "
            "card",
            expected,
            warning_mask=doubtful,
            warning=CARD_BELOW_RIDGE,
        ),
        make_metric_column("card ridge", "What ridge reached on the same held-out sections", expected_ridge),
        _metric_column(table, "Spearman", "spearman", "Rank correlation over the same spots"),
        _metric_column(table, "ridge Sp.", "ridge_spearman", "Rank correlation of the ridge baseline"),
        _metric_column(table, "MSE", "mse", "Mean squared error on the label scale", ".3f"),
        _metric_column(table, "ridge MSE", "ridge_mse", "Mean squared error of ridge", ".3f"),
        _metric_column(table, "mean", "mean", "Mean of the measured values"),
        _metric_column(table, "pred. mean", "predicted_mean", "Mean of the predicted values"),
        _metric_column(table, "variance", "variance", "Variance of the measured values", ".3f"),
        _metric_column(
            table,
            "pred. var.",
            "predicted_variance",
            "Variance of the predicted values; a map much flatter than measured has less",
            ".3f",
        ),
        _metric_column(table, "zeros", "zeros", "Share of spots in which the gene was not counted", ".0%"),
    )
    bad, notes = unsure | below | constant, []
    for row, gene in enumerate(comparison.panel.genes):
        why = [INTERVAL_INCLUDES_ZERO] if unsure[row] else []
        why += [BELOW_RIDGE] if below[row] else []
        why += [NO_VARIANCE] if constant[row] else []
        notes.append("\n".join(t for t in (gene.name, *why) if t))
    return MetricsTableData(tuple(f.symbol for f in table), columns, tuple(notes), bad)


def make_export_table(comparison: Comparison) -> MetricsTableData:
    """The same for a file: the interval's ends have columns of their own."""
    shown, table = make_gene_table(comparison), comparison.metrics_per_gene
    pcc, *others = shown.columns
    names = "pcc", "low", "high"
    ends = tuple(make_metric_column(name, pcc.tooltip, _metric_values(table, name)) for name in names)
    return MetricsTableData(shown.symbols, (*ends, *others))


def _metric_values(table: tuple[GeneMetrics, ...], name: str) -> NDArray[np.float64]:
    return np.array([getattr(row, name) for row in table], dtype=float)


def _metric_column(
    table: tuple[GeneMetrics, ...], title: str, name: str, tooltip: str, number_format: str = ".2f"
) -> MetricColumn:
    return make_metric_column(title, tooltip, _metric_values(table, name), number_format)


def _format_interval(pcc: float, low: float, high: float) -> str:
    if np.isnan(pcc):
        return format_metric(pcc)
    return f"{pcc:.2f} [{format_metric(low)}, {format_metric(high)}]"

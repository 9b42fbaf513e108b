"""Metrics of a comparison: gene table, summary and worst regions, computed in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ....widgets.metrics_table import (
    MetricColumn,
    MetricsTableData,
    format_metric,
    make_metric_column,
)
from ....widgets.signal_connections import SignalConnections
from ....worker import JobFailure, JobRunner
from .quality_model import QualityModel

if TYPE_CHECKING:
    from .....quality.comparison import Comparison
    from .....quality.comparison_summary import ComparisonSummary
    from .....quality.error_regions import ErrorRegion
    from .....quality.gene_metrics import GeneMetrics


INTERVAL_INCLUDES_ZERO = (
    "The 95 % interval does not lie above 0: this gene may not be predicted here at all."
)
BELOW_RIDGE = "The ridge baseline does better than the model on this gene."
NO_VARIANCE = "Measured or predicted is the same at all spots, so there is no correlation."
CARD_BELOW_RIDGE = "On held-out sections the model did no better than ridge on this gene."
NOT_JUDGED = (
    "Cannot be judged here: random halves of its counts do not agree, so they are too few to tell "
    "a good prediction from a bad one."
)
DEPTH_REGRESSED_OUT = (
    "after the number of molecules of each spot is regressed out of both, so that a prediction "
    "that follows tissue density scores 0"
)
NOT_RECORDED = "The card does not record it."


def make_gene_table(comparison: Comparison) -> MetricsTableData:
    """Make a table with a row per gene that is measured and predicted, in the panel's order.

    It is judged by the depth-partial PCC, by the plain one where the counts are not known.
    """
    table = comparison.metrics_per_gene
    beside_depth = comparison.reference is not None
    is_judged = np.array([gene.is_judged for gene in table], bool)
    names = ("partial", "partial_low", "ridge_partial")
    if not beside_depth:
        names = ("pcc", "low", "ridge_pcc")
    value, low, ridge = (_metric_values(table, name) for name in names)
    expected, expected_ridge = (
        _metric_values(table, name)
        for name in (
            ("expected_partial", "expected_ridge_partial")
            if comparison.held_out_partial
            else ("expected_pcc", "expected_ridge_pcc")
        )
    )
    is_uncertain = ((low <= 0) | (value <= 0)) & is_judged
    is_constant = np.isnan(value) & is_judged
    is_below_ridge = (ridge > value) & is_judged
    is_doubtful = expected_ridge >= expected
    plain = _make_interval_column(
        table,
        "PCC [95 %]",
        ("pcc", "low", "high"),
        "Pearson correlation of measured and predicted values",
        len(comparison.spots),
    )
    decided = plain
    columns: list[MetricColumn] = []
    if beside_depth:
        decided = _make_interval_column(
            table,
            "partial [95 %]",
            ("partial", "partial_low", "partial_high"),
            f"Depth-partial PCC: correlation of measured and predicted values, "
            f"{DEPTH_REGRESSED_OUT};",
            len(comparison.spots),
        )
    format_decided = decided.format_value

    def format_if_judged(row: int) -> str:
        return format_decided(row) if is_judged[row] else "cannot be judged"

    decided = replace(
        decided,
        format_value=format_if_judged,
        warning_mask=is_uncertain,
        warning=INTERVAL_INCLUDES_ZERO,
    )
    columns += [
        decided,
        make_metric_column(
            "ridge",
            "The same of the ridge baseline: a linear model on the same tiles, trained on the "
            "same sections; what the model has to beat",
            ridge,
            warning_mask=is_below_ridge,
            warning=BELOW_RIDGE,
        ),
    ]
    if beside_depth:
        columns += [
            _metric_column(
                table,
                "ceiling",
                "ceiling",
                "What a perfect prediction could reach of it here, given the counting noise",
            )
        ]
    card_title = "card" if comparison.held_out_partial or not beside_depth else "card PCC"
    columns += [
        make_metric_column(
            card_title,
            ("Depth-partial PCC" if comparison.held_out_partial else "PCC")
            + " to be expected: what the model reached on held-out sections, from its card"
            + ("" if card_title == "card" else ". It does not record the depth-partial PCC"),
            expected,
            warning_mask=is_doubtful,
            warning=CARD_BELOW_RIDGE,
        ),
        make_metric_column(
            "card ridge", "What ridge reached on the same held-out sections", expected_ridge
        ),
    ]
    if beside_depth:
        ridge_pcc = _metric_column(
            table, "ridge PCC", "ridge_pcc", "Plain correlation of the ridge baseline"
        )
        columns += [plain, ridge_pcc]
    columns += [
        _metric_column(table, "Spearman", "spearman", "Rank correlation over the same spots"),
        _metric_column(
            table, "ridge Sp.", "ridge_spearman", "Rank correlation of the ridge baseline"
        ),
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
        _metric_column(
            table, "zeros", "zeros", "Share of spots in which the gene was not counted", ".0%"
        ),
    ]
    warning_mask, notes = is_uncertain | is_below_ridge | is_constant, []
    for row, gene in enumerate(comparison.panel.genes):
        warnings = [] if is_judged[row] else [NOT_JUDGED]
        warnings += [INTERVAL_INCLUDES_ZERO] if is_uncertain[row] else []
        warnings += [BELOW_RIDGE] if is_below_ridge[row] else []
        warnings += [NO_VARIANCE] if is_constant[row] else []
        notes.append("\n".join(t for t in (gene.name, *warnings) if t))
    return MetricsTableData(
        tuple(m.symbol for m in table), tuple(columns), tuple(notes), warning_mask
    )


def make_export_table(comparison: Comparison) -> MetricsTableData:
    """Make the same table for a file: the limits of an interval have columns of their own."""
    displayed, table = make_gene_table(comparison), comparison.metrics_per_gene
    limits = {
        "partial [95 %]": ("partial", "partial_low", "partial_high"),
        "PCC [95 %]": ("pcc", "low", "high"),
    }
    columns: list[MetricColumn] = []
    for column in displayed.columns:
        columns += [
            make_metric_column(name, column.tooltip, _metric_values(table, name))
            for name in limits.get(column.title, ())
        ] or [column]
    if comparison.reference is not None:
        judged = [float(gene.is_judged) for gene in table]
        columns.append(make_metric_column("judged", NOT_JUDGED, judged, ".0f"))
    return MetricsTableData(displayed.symbols, tuple(columns))


def _make_interval_column(
    table: tuple[GeneMetrics, ...],
    title: str,
    names: tuple[str, str, str],
    meaning: str,
    n_spots: int,
) -> MetricColumn:
    """Make a column of a correlation with its interval; `names` are those of the metrics."""
    value, low, high = (_metric_values(table, name) for name in names)
    return MetricColumn(
        title,
        f"{meaning} over {n_spots:,} spots, with its 95 % interval (from drawing spatial blocks "
        "again and again, since neighbours are not independent)",
        value,
        lambda row: _format_interval(value[row], low[row], high[row]),
    )


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


@dataclass(frozen=True)
class _MetricsResult:
    comparison: Comparison
    table_data: MetricsTableData
    summary: ComparisonSummary


class ComparisonMetrics:
    """Computes table, summary and worst regions of the current comparison."""

    changed = Signal()
    regions_changed = Signal()

    def __init__(self, model: QualityModel, connections: SignalConnections) -> None:
        self.model, self.session = model, model.session
        self._runner, self._regions_runner = JobRunner("figures"), JobRunner("regions")
        self._result: _MetricsResult | None = None
        self.worst_regions: tuple[ErrorRegion, ...] = ()
        self.for_current_gene = False  # worst regions of the current gene, or over all genes
        connections.connect(self._on_comparison_changed, model.comparison_changed)
        connections.connect(self._on_gene_changed, model.session.gene_changed)
        self._on_comparison_changed()

    def close(self) -> None:
        for runner in (self._runner, self._regions_runner):
            runner.cancel()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait for the worker threads; return whether they have ended."""
        return self._runner.wait(seconds) and self._regions_runner.wait(seconds)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    @property
    def comparison(self) -> Comparison | None:
        """The comparison that the metrics belong to."""
        return None if self._result is None else self._result.comparison

    @property
    def table_data(self) -> MetricsTableData:
        return MetricsTableData() if self._result is None else self._result.table_data

    @property
    def summary(self) -> ComparisonSummary | None:
        return None if self._result is None else self._result.summary

    def set_region_scope(self, for_current_gene: bool) -> None:
        """Find the worst regions of the current gene, or over all genes."""
        self.for_current_gene = for_current_gene
        self._find_regions()

    def _on_comparison_changed(self) -> None:
        comparison = self.model.comparison
        self._result, self.worst_regions = None, ()

        def job() -> Iterator[_MetricsResult]:
            assert comparison is not None
            yield _MetricsResult(comparison, make_gene_table(comparison), comparison.summary)

        self._runner.cancel()
        if comparison is not None:
            self._runner.start(job, self._on_metrics, self._on_finished)
        self.changed.emit()
        self.regions_changed.emit()

    def _on_metrics(self, result: _MetricsResult) -> None:
        self._result = result
        self.changed.emit()
        self._find_regions()

    def _on_gene_changed(self) -> None:
        if self.for_current_gene:
            self._find_regions()

    def _find_regions(self) -> None:
        comparison, gene = self.comparison, self.session.gene if self.for_current_gene else None
        if comparison is None or (gene is not None and gene not in comparison.panel):
            self._set_regions(())
            return

        def job() -> Iterator[tuple[ErrorRegion, ...]]:
            from .....quality.error_regions import find_error_regions

            yield find_error_regions(comparison, gene)

        self._regions_runner.start(job, self._set_regions, self._on_finished)

    def _set_regions(self, regions: tuple[ErrorRegion, ...]) -> None:
        self.worst_regions = regions
        self.regions_changed.emit()

    def _on_finished(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.message.show(failure.message, warning=True)

"""The figures of a comparison, made in a thread: intervals over 250 genes take a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal

from ..lane import JobFailure, JobRunner
from ..links import SignalConnections
from ..session import ViewerSession
from .gene_columns import make_gene_table
from .state import QualityController
from .table import MetricsTableData

if TYPE_CHECKING:
    from ...quality.compare import Comparison
    from ...quality.gene_table import ComparisonSummary
    from ...quality.regions import ErrorRegion


@dataclass(frozen=True)
class _MetricsResult:
    comparison: Comparison
    table_data: MetricsTableData
    summary: ComparisonSummary


class ComparisonMetrics:
    """Table, summary and worst regions of the session's comparison, as soon as they are made."""

    changed = Signal()
    regions_changed = Signal()

    def __init__(self, session: ViewerSession, quality: QualityController, connections: SignalConnections) -> None:
        self._session, self._quality = session, quality
        self._runner, self._regions_runner = JobRunner("figures"), JobRunner("regions")
        self._result: _MetricsResult | None = None
        self.worst_regions: tuple[ErrorRegion, ...] = ()
        self.for_current_gene = False  # regions: of the chosen gene, or over all genes
        connections.connect(self._on_comparison_changed, quality.comparison_changed)
        connections.connect(self._on_gene_changed, session.gene_changed)
        self._on_comparison_changed()

    def close(self) -> None:
        for lane in (self._runner, self._regions_runner):
            lane.cancel()

    @property
    def busy(self) -> bool:
        return self._runner.busy

    @property
    def comparison(self) -> Comparison | None:
        """The one that the figures are of."""
        return None if self._result is None else self._result.comparison

    @property
    def table_data(self) -> MetricsTableData:
        return MetricsTableData() if self._result is None else self._result.table_data

    @property
    def summary(self) -> ComparisonSummary | None:
        return None if self._result is None else self._result.summary

    def set_region_scope(self, for_current_gene: bool) -> None:
        """Worst regions of the chosen gene, or over all genes."""
        self.for_current_gene = for_current_gene
        self._find_regions()

    def _on_comparison_changed(self) -> None:
        comparison = self._quality.comparison
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
        comparison, gene = self.comparison, self._session.gene if self.for_current_gene else None
        if comparison is None or (gene is not None and gene not in comparison.panel):
            self._set_regions(())
            return

        def job() -> Iterator[tuple[ErrorRegion, ...]]:
            from ...quality.regions import find_error_regions

            yield find_error_regions(comparison, gene)

        self._regions_runner.start(job, self._set_regions, self._on_finished)

    def _set_regions(self, regions: tuple[ErrorRegion, ...]) -> None:
        self.worst_regions = regions
        self.regions_changed.emit()

    def _on_finished(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.show_message(failure.message, warning=True)

"""The figures of a comparison, made in a thread: intervals over 250 genes take a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal

from ..lane import Failure, Lane
from ..links import Links
from ..session import Session
from .gene_columns import gene_rows
from .state import Quality
from .table import Rows

if TYPE_CHECKING:
    from ...quality.compare import Comparison
    from ...quality.gene_table import Summary
    from ...quality.regions import Region


@dataclass(frozen=True)
class _Made:
    comparison: Comparison
    rows: Rows
    summary: Summary


class Figures:
    """Table, summary and worst regions of the session's comparison, as soon as they are made."""

    changed = Signal()
    regions_changed = Signal()

    def __init__(self, session: Session, quality: Quality, links: Links) -> None:
        self._session, self._quality = session, quality
        self._lane, self._regions_lane = Lane("figures"), Lane("regions")
        self._made: _Made | None = None
        self.regions: tuple[Region, ...] = ()
        self.of_gene = False  # regions: of the chosen gene, or over all genes
        links.join(self._comparison, quality.comparison_changed)
        links.join(self._gene, session.gene_changed)
        self._comparison()

    def close(self) -> None:
        for lane in (self._lane, self._regions_lane):
            lane.cancel()

    @property
    def busy(self) -> bool:
        return self._lane.busy

    @property
    def comparison(self) -> Comparison | None:
        """The one that the figures are of."""
        return None if self._made is None else self._made.comparison

    @property
    def rows(self) -> Rows:
        return Rows() if self._made is None else self._made.rows

    @property
    def summary(self) -> Summary | None:
        return None if self._made is None else self._made.summary

    def show_regions(self, of_gene: bool) -> None:
        """Worst regions of the chosen gene, or over all genes."""
        self.of_gene = of_gene
        self._find_regions()

    def _comparison(self) -> None:
        comparison = self._quality.comparison
        self._made, self.regions = None, ()

        def job() -> Iterator[_Made]:
            assert comparison is not None
            yield _Made(comparison, gene_rows(comparison), comparison.summary)

        self._lane.cancel()
        if comparison is not None:
            self._lane.start(job, self._take, self._end)
        self.changed.emit()
        self.regions_changed.emit()

    def _take(self, made: _Made) -> None:
        self._made = made
        self.changed.emit()
        self._find_regions()

    def _gene(self) -> None:
        if self.of_gene:
            self._find_regions()

    def _find_regions(self) -> None:
        comparison, gene = self.comparison, self._session.gene if self.of_gene else None
        if comparison is None or (gene is not None and gene not in comparison.panel):
            self._found(())
            return

        def job() -> Iterator[tuple[Region, ...]]:
            from ...quality.regions import worst_regions

            yield worst_regions(comparison, gene)

        self._regions_lane.start(job, self._found, self._end)

    def _found(self, regions: tuple[Region, ...]) -> None:
        self.regions = regions
        self.regions_changed.emit()

    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self._session.say(failure.sentence, alarming=True)

"""Regions of the current slide, their tiles, and the statistics of the shown gene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ...layers.region_objects import RegionLayerWatch, RegionObject, list_region_objects
from ...layers.region_objects import region_layers as find_region_layers
from ...layers.slide_tiles import SlideTiles, TileValues, find_slide_tiles
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession
from ...widgets.signal_connections import Debouncer, SignalConnections
from ...worker import JobFailure, JobRunner
from ..quality.quality_controller import QualityController

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ....quality.region_statistics import RegionStatistics


REFRESH_DELAY_MS = 120  # a shape that is dragged changes many times a second


@dataclass(frozen=True, eq=False)
class RegionGroup:
    """A row of the table: a class with all of its regions, or one region of a class.

    Attributes
    ----------
    name : str
        Shown in the table, unique.
    objects : tuple of RegionObject
    is_class : bool
    """

    name: str
    objects: tuple[RegionObject, ...]
    is_class: bool

    @property
    def geometries(self) -> list[BaseGeometry]:
        return [o.region.geometry for o in self.objects]

    @property
    def color(self) -> tuple[int, int, int]:
        return self.objects[0].region.color or (128, 128, 128)


@dataclass(frozen=True, eq=False)
class RegionTable:
    """Statistics of R groups for one gene.

    Attributes
    ----------
    groups : tuple of RegionGroup
    gene : str or None
    predicted, measured : RegionStatistics or None
        Of one gene; None without a map, or without a measured section on this slide.
    """

    groups: tuple[RegionGroup, ...] = ()
    gene: str | None = None
    predicted: RegionStatistics | None = None
    measured: RegionStatistics | None = None


class RegionsModel:
    """Follows regions, maps and gene of a session; statistics are computed in a worker thread."""

    changed = Signal()  # `groups`
    table_changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.objects: tuple[RegionObject, ...] = ()
        self.groups: tuple[RegionGroup, ...] = ()
        self.table = RegionTable()
        self._runner = JobRunner("regions table")
        self._debouncer = Debouncer(REFRESH_DELAY_MS, self.refresh)
        self._region_watch = RegionLayerWatch(session, connections, self.schedule)
        connections.connect(
            self.schedule,
            session.slide_changed,
            session.slides_changed,
            session.gene_changed,
            session.overlays_changed,
            session.overlay_updated,
            session.checkpoint_changed,
        )
        self._connections = connections
        self._quality: QualityController | None = None  # exists once its panel was opened
        self.refresh()

    @property
    def busy(self) -> bool:
        return self._runner.busy or self._debouncer.active

    @property
    def slide(self) -> ViewerSlide | None:
        return self.session.slide

    def close(self) -> None:
        self._debouncer.stop()
        self._runner.close()

    def schedule(self, event: object = None) -> None:
        """Refresh soon."""
        self._debouncer.start()

    def tiles(self) -> SlideTiles | None:
        """Return the maps of the current slide."""
        slide = self.slide
        if slide is None or slide.pixel_size is None:
            return None
        return find_slide_tiles(self.session, slide)

    def measured(self) -> TileValues | None:
        """Return the measured labels at the spots of the section on the current slide."""
        quality = self._watch_quality()
        if quality is None:
            return None
        comparison, section = quality.model.comparison, quality.model.section
        if comparison is None or section is None or section.slide is not self.slide:
            return None
        spots, slide = comparison.spots, self.slide
        assert slide is not None
        pitch = (spots.pitch_um or spots.diameter_um or 100.0) / slide.mpp
        return TileValues(comparison.panel, comparison.measured, spots.xy, pitch)

    def measured_depth(self) -> NDArray[np.float64] | None:
        """Return counts of all genes at the spots of `measured`, None where they are unknown."""
        quality = self._watch_quality()
        if quality is None or self.measured() is None:
            return None
        comparison, section = quality.model.comparison, quality.model.section
        assert comparison is not None and section is not None
        counts = 10 ** section.total_counts_log10().astype(np.float64) - 1
        row_of = {name: row for row, name in enumerate(map(str, section.data.obs_names))}
        rows = [row_of.get(name) for name in comparison.spots.labels]
        if any(row is None for row in rows):
            return None
        return np.asarray(counts[np.array(rows, np.int64)])

    def refresh(self) -> None:
        """List the regions, and compute the table of the shown gene."""
        self._region_watch.refresh()
        slide = self.slide
        if slide is None or slide.pixel_size is None:
            self.objects = ()
        else:
            self.objects = list_region_objects(find_region_layers(self.session, slide), slide)
        self.groups = _group_objects(self.objects)
        self.changed.emit()
        self._compute_table()

    def _compute_table(self) -> None:
        slide, tiles, measured = self.slide, self.tiles(), self.measured()
        groups, gene = self.groups, self.session.gene
        if slide is None or not groups or gene is None:
            self._runner.cancel()
            self._set_table(RegionTable(groups, gene))
            return
        mpp = slide.mpp

        def job() -> Iterator[RegionTable]:
            from ....quality.region_statistics import summarize_regions
            from ....spatial.polygons import union_polygons

            regions = [union_polygons(g.geometries) for g in groups]

            def summarize(source: TileValues) -> Any:
                column = source.panel.row(gene)
                values = source.values[:, [column]]
                return summarize_regions(
                    regions, values, source.xy, source.pitch, mpp, source.unreliable
                )

            predicted = None
            if tiles is not None and tiles.has_gene(gene):
                predicted = summarize(tiles.read([gene]))
            known = measured is not None and gene in measured.panel
            yield RegionTable(
                groups, gene, predicted, summarize(measured) if known and measured else None
            )

        self._runner.start(job, self._set_table, self._on_end)

    def _set_table(self, table: RegionTable) -> None:
        self.table = table
        self.table_changed.emit()

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.message.show(failure.message, warning=True)

    def _watch_quality(self) -> QualityController | None:
        """Return the quality control of the session, if it was opened, and follow it."""
        found = self.session.components.get(QualityController)
        if isinstance(found, QualityController) and found is not self._quality:
            self._quality = found
            self._connections.connect(self.schedule, found.model.comparison_changed)
        return found if isinstance(found, QualityController) else None


def _group_objects(objects: tuple[RegionObject, ...]) -> tuple[RegionGroup, ...]:
    """A row per class, and below it one per region where a class has several."""
    by_class: dict[str, list[RegionObject]] = {}
    for region in objects:
        by_class.setdefault(region.class_name, []).append(region)
    groups: list[RegionGroup] = []
    used: set[str] = set(by_class)
    for name, members in by_class.items():
        groups.append(RegionGroup(name, tuple(members), True))
        for region in members if len(members) > 1 else ():
            title, number = region.region.name, 2
            while title in used:
                title, number = f"{region.region.name} ({number})", number + 1
            used.add(title)
            groups.append(RegionGroup(title, (region,), False))
    return tuple(groups)

"""Histogram of the shown gene on the current slide: its limits, the clicked tile, the regions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import ensure_colormap
from numpy.typing import NDArray
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QVBoxLayout, QWidget

from ...layers.overlay_display import OverlayDisplay
from ...layers.overlay_lookup import find_overlay_slide
from ...layers.prediction_layers import GridOverlay
from ...layers.region_objects import RegionLayerWatch, list_region_objects, region_layers
from ...session.prediction_overlay import PredictionOverlay
from ...session.viewer_session import ViewerSession
from ...widgets.signal_connections import Debouncer, SignalConnections
from ...widgets.value_histogram_plot import HistogramContent, HistogramMark, ValueHistogramPlot
from ...worker import JobFailure, JobRunner

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ....quality.value_histogram import ValueHistogram, ValueSpread


REFRESH_DELAY_MS = 80
MAX_REGIONS = 5  # rows of marks; the table of the regions has all
N_COLORS = 16  # of the colour strip


@dataclass(frozen=True, eq=False)
class _RegionClass:
    """All regions of one class."""

    name: str
    color: tuple[int, int, int]
    geometries: list[BaseGeometry]


@dataclass(frozen=True, eq=False)
class _Values:
    """Values (N,) of the tiles that are shown, their centres (N, 2) and the pitch, in level-0 px.

    Attributes
    ----------
    noun : str
        What the values belong to.
    """

    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    pitch: float
    noun: str


@dataclass(frozen=True, eq=False)
class _Result:
    histogram: ValueHistogram | None
    spreads: list[tuple[_RegionClass, ValueSpread]]
    share_below: float  # of the clicked tile


class HistogramBox(QWidget):
    """Follows gene, maps, spot and regions; values are counted in a worker thread."""

    def __init__(
        self, session: ViewerSession, connections: SignalConnections, display: OverlayDisplay
    ) -> None:
        super().__init__()
        self._session, self._display = session, display
        self.plot = ValueHistogramPlot()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        self._runner = JobRunner("histogram")
        self._debouncer = Debouncer(REFRESH_DELAY_MS, self._start)
        self._is_outdated = False  # something changed while values were counted
        self._classes: list[_RegionClass] | None = None  # None: to be listed again
        self._region_watch = RegionLayerWatch(session, connections, self._on_regions_changed)
        self.plot.limits_dragged.connect(lambda low, high: display.preview_limits((low, high)))
        self.plot.limits_chosen.connect(lambda low, high: self._choose((low, high)))
        self.plot.limits_reset.connect(lambda: self._choose(None))
        connections.connect(
            self.schedule,
            session.gene_changed,
            session.settings_changed,
            session.overlays_changed,
            session.overlay_updated,
            session.spot_changed,
        )
        connections.connect(self._on_regions_changed, session.slide_changed)
        connections.on_disconnect(self.close_jobs)
        self.hide()

    @property
    def busy(self) -> bool:
        return self._runner.busy or self._debouncer.active

    def close_jobs(self) -> None:
        self._debouncer.stop()
        self._runner.close()

    def _on_regions_changed(self, event: object = None) -> None:
        self._classes = None
        self.schedule()

    def schedule(self, event: object = None) -> None:
        """Count again soon; a map that grows without a pause is counted all the same."""
        if not self._debouncer.active:
            self._debouncer.start()

    def _choose(self, limits: tuple[float, float] | None) -> None:
        """Set the limits, of all genes where these are fixed; None: percentiles again."""
        session = self._session
        if session.gene is not None:
            chosen = session.settings.contrast_limits.choose(session.gene, limits)
            session.change_settings(contrast_limits=chosen)

    def _start(self) -> None:
        if self._runner.busy:
            self._is_outdated = True
            return
        self._is_outdated = False
        shown, gene = self._read_values(), self._session.gene
        self.setVisible(shown is not None)
        if shown is None or gene is None:
            return
        classes = self._list_classes()
        tile = self._tile_value(gene)

        def job() -> Iterator[_Result]:
            from ....quality.region_statistics import tiles_in_region
            from ....quality.value_histogram import build_histogram, measure_spread, share_below

            spreads = []
            for each in classes:
                inside = np.zeros(len(shown.xy), bool)
                for geometry in each.geometries:
                    inside |= tiles_in_region(geometry, shown.xy, shown.pitch)
                spread = measure_spread(shown.values[inside])
                if spread is not None:
                    spreads.append((each, spread))
            below = share_below(shown.values, tile) if np.isfinite(tile) else float("nan")
            yield _Result(build_histogram(shown.values), spreads, below)

        def show(result: _Result) -> None:
            self._show(gene, shown, tile, result)

        self._runner.start(job, show, self._on_end)

    def _on_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.message.show(failure.message, warning=True)
        elif self._is_outdated:
            self.schedule()

    def _overlays(self) -> list[PredictionOverlay]:
        """The maps of the current slide, else clicked spots, else maps of slides not open."""
        shown, slide = self._display.counted_overlays(), self._session.slide
        here = [o for o in shown if slide and find_overlay_slide(self._session, o) is slide]
        chosen = here or shown
        return [o for o in chosen if not o.from_clicks] or chosen

    def _read_values(self) -> _Values | None:
        """Return the decoded values of the gene, each tile once; None without any."""
        gene = self._session.gene
        overlays = self._overlays()
        values, xy = [], []
        for overlay in overlays:
            column = overlay.prediction.get_gene_values(gene or "")
            known = np.isfinite(column)
            if isinstance(overlay, GridOverlay):
                known &= ~overlay.covered
            values.append(column[known])
            xy.append(overlay.prediction.target.spots.xy[known])
        if not sum(map(len, values)):
            return None
        last = overlays[-1].prediction
        grid = last.target.grid
        pitch = last.spot_diameter_um / float(last.provenance["mpp"])
        noun = "clicked spots" if overlays[-1].from_clicks else "tiles"
        return _Values(
            np.concatenate(values),
            np.concatenate(xy),
            pitch if grid is None else grid.pitch,
            noun,
        )

    def _tile_value(self, gene: str) -> float:
        """Return the value of the clicked tile, if it lies on the current slide."""
        spot, slide = self._session.spot, self._session.slide
        if spot is None or slide is None or not spot.has_gene(gene):
            return float("nan")
        if spot.provenance.get("slide_fingerprint") != slide.slide.fingerprint():
            return float("nan")
        return float(spot.get_gene_values(gene)[-1])

    def _list_classes(self) -> list[_RegionClass]:
        if self._classes is not None:
            return self._classes
        slide, by_name = self._session.slide, dict[str, _RegionClass]()
        self._region_watch.refresh()
        if slide is not None and slide.pixel_size is not None:
            layers = region_layers(self._session, slide)
            for region in list_region_objects(layers, slide):
                color = region.region.color or (128, 128, 128)
                empty = _RegionClass(region.class_name, color, [])
                known = by_name.setdefault(region.class_name, empty)
                known.geometries.append(region.region.geometry)
        self._classes = list(by_name.values())[:MAX_REGIONS]
        return self._classes

    def _show(self, gene: str, shown: _Values, tile: float, result: _Result) -> None:
        histogram = result.histogram
        if histogram is None or gene != self._session.gene:
            return
        marks = tuple(
            HistogramMark(
                s.low,
                s.median,
                s.high,
                QColor(*c.color),
                f"{c.name}: median {s.median:.2f}, middle half {s.low:.2f} to {s.high:.2f}, "
                f"{s.n_tiles:,} tiles",
            )
            for c, s in result.spreads
        )
        tile_text = ""
        if np.isfinite(tile):
            tile_text = f"this spot: {tile:.2f}, above {result.share_below:.0%} of {shown.noun}"
        colormap = ensure_colormap(self._session.settings.colormap)
        self.plot.set_content(
            HistogramContent(
                histogram.edges,
                histogram.counts,
                histogram.log_heights(),
                f"{gene}: {histogram.n_tiles:,} {shown.noun}, log counts",
                np.asarray(colormap.map(np.linspace(0, 1, N_COLORS))),
                tile,
                tile_text,
                marks,
            )
        )
        self.plot.set_limits(self._display.contrast_limits())

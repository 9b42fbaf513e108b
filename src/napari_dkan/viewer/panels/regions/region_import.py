"""Import regions from GeoJSON files and masks in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import shapely
from napari.layers import Layer, Shapes
from napari.utils.notifications import show_warning
from psygnal import Signal
from shapely.geometry.base import BaseGeometry

from ....errors import SpotsError, UnclearRegionsError
from ....spatial.object_types import RegionObjects
from ...layers.region_layers import EdgeWidthSync, make_region_layers
from ...session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide
from ...session.viewer_session import ViewerSession, get_component
from ...worker import JobFailure, JobRunner


class RegionImporter:
    """Imports one file of regions at a time; one importer per session."""

    imported = Signal(object)  # the new Shapes layer
    unclear_changed = Signal()  # `unclear`

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._runner = JobRunner("regions")
        self._pending_paths: list[tuple[Path, RegionObjects | None]] = []
        self.unclear: tuple[Path, tuple[str, ...]] | None = None  # a file, and the types to choose
        self._pending_layers: list[Layer] = []  # imported before a slide was open
        self._edge_widths = EdgeWidthSync(session.viewer)
        session.slide_changed.connect(self._place_pending_layers)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def import_file(self, path: Path, objects: RegionObjects | None = None) -> None:
        """Add the regions of a GeoJSON or mask file; several files are queued.

        Parameters
        ----------
        path
        objects
            The objects of a GeoJSON that are regions; None for annotations.
        """
        self._pending_paths.append((path, objects))
        if not self._runner.busy:
            self._import_next()

    def _import_next(self) -> None:
        from ....spatial.region_files import read_named_regions

        if not self._pending_paths:
            return
        (path, objects), slide = self._pending_paths.pop(0), self._session.slide
        if self.unclear is not None and self.unclear[0] == path:
            self._set_unclear(None)
        notes: list[str] = []

        def job() -> Iterator[list[Layer]]:
            area = None if slide is None else slide.slide.scan_area
            regions = read_named_regions(path, area, objects=objects, note=notes.append)
            _check_on_slide([r.geometry for r in regions], slide, path.name)
            mpp = None if slide is None or slide.pixel_size is None else slide.mpp
            yield list[Layer](make_region_layers(regions, path.name, mpp))

        def receive(layers: list[Layer]) -> None:
            self._add_layers(layers, slide)
            self._session.message.show(" ".join(f"{note}." for note in notes))

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                sentence = failure.message
                if isinstance(failure.error, UnclearRegionsError):
                    self._set_unclear((path, failure.error.types))
                    sentence = (
                        f"{failure.error.finding} Choose in the panel DKAN: predict, under Where, "
                        "which of them are regions."
                    )
                self._session.message.show(sentence, warning=True)
                show_warning(sentence)  # a file was dropped: no panel may be open
            self._import_next()

        self._session.message.show(f"Reading {path.name} ...")
        self._runner.start(job, receive, end)

    def _set_unclear(self, unclear: tuple[Path, tuple[str, ...]] | None) -> None:
        self.unclear = unclear
        self.unclear_changed.emit()

    def _add_layers(self, imported_layers: list[Layer], slide: ViewerSlide | None) -> None:
        layers = self._session.viewer.layers
        self._session.message.show("")
        for layer in imported_layers:
            if slide is None:
                self._pending_layers.append(layer)
            else:
                self._session.layers.attach(slide, layer)
            layers.append(layer)
            if isinstance(layer, Shapes):
                self._edge_widths.update_edge_width(layer)
        shapes = [layer for layer in imported_layers if isinstance(layer, Shapes)]
        if shapes:
            layers.selection.active = shapes[0]
            shapes[0].mode = "pan_zoom"
            self.imported.emit(shapes[0])

    def _place_pending_layers(self) -> None:
        """Place regions that were imported before a slide was open on the first slide."""
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return
        pending, self._pending_layers = self._pending_layers, []
        for layer in pending:
            if layer in self._session.viewer.layers:
                layer.scale, layer.units = (slide.mpp,) * 2, MICROMETER_UNITS
                x, y = slide.slide.scan_origin  # from where regions of QuPath count
                layer.translate = (y * slide.mpp, x * slide.mpp)
                layer.axis_labels = AXIS_LABELS
                self._session.layers.attach(slide, layer)


def _check_on_slide(geometries: list[BaseGeometry], slide: ViewerSlide | None, name: str) -> None:
    """Raise SpotsError when no region of a file is on the slide."""
    if slide is None:
        return
    width, height = slide.slide.width, slide.slide.height
    x0, y0, x1, y1 = shapely.total_bounds(geometries)
    if not (x0 < width and y0 < height and x1 > 0 and y1 > 0):
        raise SpotsError(
            f"The regions in {name} lie outside the slide ({width:,} x {height:,} px); "
            "open the slide that they were drawn on."
        )


def get_region_importer(session: ViewerSession) -> RegionImporter:
    """Return the importer of a session; create it at first use."""
    return get_component(session, RegionImporter)

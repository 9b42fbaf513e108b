"""Import regions from GeoJSON files and masks in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import shapely
from napari.layers import Layer, Shapes
from napari.utils.notifications import show_warning
from psygnal import Signal

from ....errors import SpotsError
from ...layers.region_layers import EdgeWidthSync, make_region_layers
from ...session.slide_layer import AXIS_LABELS, MICROMETER_UNITS, ViewerSlide
from ...session.viewer_session import ViewerSession, get_component
from ...worker import JobFailure, JobRunner


class RegionImporter:
    """Reads one file of regions at a time. One per session."""

    imported = Signal(object)  # the Shapes layer that is there now

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._runner = JobRunner("regions")
        self._pending_paths: list[Path] = []
        self._pending_layers: list[Layer] = []  # came before any slide
        self._edge_widths = EdgeWidthSync(session.viewer)
        session.slide_changed.connect(self._place_pending_layers)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def import_file(self, path: Path) -> None:
        """Read a GeoJSON or a mask and show what it holds; several follow each other."""
        self._pending_paths.append(path)
        if not self._runner.busy:
            self._import_next()

    def _import_next(self) -> None:
        from ....spatial.region_files import read_named_regions

        if not self._pending_paths:
            return
        path, slide = self._pending_paths.pop(0), self._session.slide
        made: list[Layer] = []

        def job() -> Iterator[None]:
            size = (None, None) if slide is None else (slide.slide.width, slide.slide.height)
            regions = read_named_regions(path, *size)
            _check_on_slide([r.geometry for r in regions], slide, path.name)
            mpp = None if slide is None or slide.pixel_size is None else slide.mpp
            made.extend(make_region_layers(regions, path.name, mpp))
            yield

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                self._session.message.show(failure.message, warning=True)
                show_warning(failure.message)  # it was dropped: there may be no panel
            else:
                self._add_layers(made, slide)
            self._import_next()

        self._session.message.show(f"Reading {path.name} ...")
        self._runner.start(job, lambda item: None, end)

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
        """What came before its slide is laid on the first one that is opened."""
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return
        waiting, self._pending_layers = self._pending_layers, []
        for layer in waiting:
            if layer in self._session.viewer.layers:
                layer.scale, layer.units, layer.axis_labels = (
                    (slide.mpp,) * 2,
                    MICROMETER_UNITS,
                    AXIS_LABELS,
                )
                self._session.layers.attach(slide, layer)


def _check_on_slide(geometries: list, slide: ViewerSlide | None, name: str) -> None:
    """Raises SpotsError when nothing of a file lies on the slide."""
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
    """The one of a session, made when first asked for."""
    return get_component(session, RegionImporter)

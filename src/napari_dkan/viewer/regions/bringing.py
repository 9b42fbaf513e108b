"""Bringing regions in: read off the GUI thread, then laid on the slide as shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import shapely
from napari.layers import Layer, Shapes
from napari.utils.notifications import show_warning
from psygnal import Signal

from ...errors import SpotsError
from ..companions import companion
from ..lane import Failure, Lane
from ..session import OpenSlide, Session
from ..slides import AXES, UNITS
from .edges import Edges
from .shapes import region_layers


class Bringing:
    """Reads one file of regions at a time. One per session."""

    brought = Signal(object)  # the Shapes layer that is there now

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lane = Lane("regions")
        self._paths: list[Path] = []
        self._unplaced: list[Layer] = []  # came before any slide
        self._edges = Edges(session.viewer)
        session.slide_changed.connect(self._place)

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def bring(self, path: Path) -> None:
        """Read a GeoJSON or a mask and show what it holds; several follow each other."""
        self._paths.append(path)
        if not self._lane.busy:
            self._next()

    def _next(self) -> None:
        from ...spatial.regions import named_regions

        if not self._paths:
            return
        path, slide = self._paths.pop(0), self._session.slide
        made: list[Layer] = []

        def job() -> Iterator[None]:
            size = (None, None) if slide is None else (slide.slide.width, slide.slide.height)
            regions = named_regions(path, *size)
            _on_slide([r.geometry for r in regions], slide, path.name)
            mpp = None if slide is None or slide.pixel_size is None else slide.mpp
            made.extend(region_layers(regions, path.name, mpp))
            yield

        def end(failure: Failure | None) -> None:
            if failure is not None:
                self._session.say(failure.sentence, alarming=True)
                show_warning(failure.sentence)  # it was dropped: there may be no panel
            else:
                self._show(made, slide)
            self._next()

        self._session.say(f"Reading {path.name} ...")
        self._lane.start(job, lambda item: None, end)

    def _show(self, made: list[Layer], slide: OpenSlide | None) -> None:
        layers = self._session.viewer.layers
        self._session.say("")
        for layer in made:
            if slide is None:
                self._unplaced.append(layer)
            else:
                self._session.put_on(slide, layer)
            layers.append(layer)
            if isinstance(layer, Shapes):
                self._edges.fit(layer)
        shapes = [layer for layer in made if isinstance(layer, Shapes)]
        if shapes:
            layers.selection.active = shapes[0]
            shapes[0].mode = "pan_zoom"
            self.brought.emit(shapes[0])

    def _place(self) -> None:
        """What came before its slide is laid on the first one that is opened."""
        slide = self._session.slide
        if slide is None or slide.pixel_size is None:
            return
        waiting, self._unplaced = self._unplaced, []
        for layer in waiting:
            if layer in self._session.viewer.layers:
                layer.scale, layer.units, layer.axis_labels = (slide.mpp,) * 2, UNITS, AXES
                self._session.put_on(slide, layer)


def _on_slide(geometries: list, slide: OpenSlide | None, name: str) -> None:
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


def bringing_of(session: Session) -> Bringing:
    """The one of a session, made when first asked for."""
    return companion(session, Bringing)

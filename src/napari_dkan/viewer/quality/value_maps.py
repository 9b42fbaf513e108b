"""Several maps over the same places of a slide, tiles or spots, each a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from napari.components.overlays import ColorBarOverlay, TextOverlay
from napari.layers import Image, Layer, Points
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from psygnal import Signal

from ...spatial.coordinates import swap_xy
from ...spatial.grid import TileGrid
from ...spatial.spots import Spots
from ..display import LEGEND as GENE_LEGEND
from ..links import Links
from ..overlay import robust_limits
from ..session import OpenSlide
from ..slides import AXES, UNITS
from .cells import Cells
from .layers import LEGEND as SPOTS_LEGEND
from .state import Layout, Quality

LEGEND = "napari_dkan_maps_legend"
VALUE = "value"


@dataclass(frozen=True, eq=False)
class Places:
    """Where the values lie: spots, or with ``grid`` the tiles of one; None: layers of others."""

    slide: OpenSlide
    spots: Spots | None = None
    grid: TileGrid | None = None


@dataclass(frozen=True, eq=False)
class ValueMap:
    """One map: its layer's name, (N,) values, contrast limits and colours."""

    name: str
    values: NDArray[np.floating]
    limits: tuple[float, float]
    colormap: str | Colormap


class ValueMaps:
    """The maps of one question, side by side or stacked; those of the next take their place."""

    changed = Signal()

    def __init__(self, quality: Quality, links: Links) -> None:
        self._quality, self._session = quality, quality.session
        self._cells = Cells(self._session.viewer)
        self.places: Places | None = None
        self.layers: list[Layer] = []
        self._caption, self._silenced = "", set[str]()
        session = self._session
        links.join(self._layer_gone, session.viewer.layers.events.removed)
        links.join(self._legends, session.gene_changed, session.settings_changed)

    @property
    def side_by_side(self) -> bool:
        return self._cells.on

    def show(self, places: Places, maps: list[ValueMap], caption: str) -> None:
        """Draw the maps, in the layers that are there if they are of the same places."""
        fresh = places is not self.places or len(self.layers) != len(maps)
        if fresh:
            opacity = self._session.settings.opacity
            layers = [_layer(places, m.name, opacity) for m in maps]
            self.put(places, layers, caption, drawn=False)
        self._caption = caption
        for layer, made in zip(self.layers, maps, strict=True):
            _draw(layer, places, made)
        if fresh:
            self.lay_out(True)
        self._legends()

    def put(self, places: Places, layers: list[Layer], caption: str, drawn: bool = True) -> None:
        """Show these layers, each in a cell of its own, instead of those before.

        caption : what they measure.
        """
        self.remove()
        self._caption = caption
        for layer in layers:
            self._session.put_on(places.slide, layer)
        self.layers, self.places = layers, places
        model = self._session.viewer.layers
        selected = set(model.selection)
        for layer in layers:
            model.append(layer)
        model.selection = selected
        if drawn:
            self.lay_out(True)

    def lay_out(self, side_by_side: bool) -> None:
        """Side by side, or one over the other on the slide."""
        if side_by_side and self.places is not None:
            self._quality.set_layout(Layout.STACKED)  # the canvas has one grid
            self._cells.enter(self.places.slide.layer, self.layers)
        else:
            self._cells.leave()
        self._legends()
        self.changed.emit()

    def _legends(self, event: object = None) -> None:
        """While these maps have the canvas, its text is about them."""
        overlays, on = self._session.viewer.canvas.overlays, self._cells.on
        for name in (GENE_LEGEND, SPOTS_LEGEND):
            if name not in overlays:
                continue
            if on and overlays[name].visible:
                overlays[name].visible = False
                self._silenced.add(name)
            elif not on and name in self._silenced:
                overlays[name].visible = True
        self._silenced = self._silenced if on else set()
        if LEGEND not in overlays:
            if not on:
                return
            overlays[LEGEND] = TextOverlay(position="top_left", font_size=9)
        overlays[LEGEND].text, overlays[LEGEND].visible = self._caption, on

    def remove(self) -> None:
        """Take the maps away; the canvas becomes as it was."""
        mine, self.layers, self.places = self.layers, [], None
        if not mine:
            return
        self._cells.leave()
        self._legends()
        layers = self._session.viewer.layers
        for layer in mine:
            if layer in layers:
                layers.remove(layer)
        self.changed.emit()

    def _layer_gone(self, event: object) -> None:
        layers, places = self._session.viewer.layers, self.places
        gone = any(layer not in layers for layer in self.layers)
        if gone or (places is not None and places.slide.layer not in layers):
            self.remove()


def shared_limits(*values: NDArray[np.floating]) -> tuple[float, float]:
    """One scale for maps that are to be compared."""
    return robust_limits([np.asarray(v, np.float32) for v in values])


def centred_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """As far below 0 as above."""
    finite = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(finite, 98)), 1e-3) if len(finite) else 1.0
    return -reach, reach


def _layer(places: Places, name: str, opacity: float) -> Layer:
    mpp, grid = places.slide.mpp, places.grid
    common = {
        "name": name,
        "units": UNITS,
        "axis_labels": AXES,
        "opacity": opacity,
        "metadata": {"napari-dkan": "compared"},
    }
    if grid is not None:
        pitch = grid.pitch * mpp
        return Image(
            np.full(grid.shape, np.nan, np.float32),
            scale=(pitch, pitch),
            translate=swap_xy((grid.corner + 0.5) * pitch),
            blending="translucent",
            interpolation2d="nearest",
            **common,
        )
    assert places.spots is not None
    return Points(
        swap_xy(places.spots.xy),
        size=(places.spots.diameter_um or 100.0) / mpp,
        scale=(mpp, mpp),
        border_color="white",
        border_width=0.04,
        features={VALUE: np.zeros(len(places.spots), np.float32)},
        **(common | {"opacity": 1.0}),
    )


def _draw(layer: Layer, places: Places, made: ValueMap) -> None:
    layer.name = made.name
    if isinstance(layer, Image) and places.grid is not None:
        layer.data = places.grid.raster(made.values)
        layer.contrast_limits_range = made.limits
        layer.contrast_limits = made.limits
        layer.colormap = made.colormap
        _show_bar(layer.colorbar)
    elif isinstance(layer, Points):
        layer.features = {VALUE: np.asarray(made.values, np.float32)}
        layer.face_color = VALUE
        layer.face_colormap = made.colormap
        layer.face_contrast_limits = made.limits
        _show_bar(layer.face_colorbar)


def _show_bar(bar: ColorBarOverlay) -> None:
    """Small: a cell has little room."""
    bar.size, bar.font_size, bar.visible = (16, 100), 8, True

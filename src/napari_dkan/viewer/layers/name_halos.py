"""Names of regions, each where it meets no other, read on pale tissue and on dark tiles alike.

napari draws a text in one colour, without an edge and at one place of a shape. Dark copies of the
names, shifted by a pixel of the screen, lie in a layer below that of the regions; so do the names
that stand elsewhere, which are transparent in the layer of the regions.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Layer, Points, Shapes
from napari.utils.colormaps.standardize_color import transform_color
from numpy.typing import NDArray
from qtpy.QtGui import QFont, QFontMetricsF

from ..session.layer_stack import preserve_selection
from ..session.slide_layer import METADATA_PREFIX
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
from .name_places import place_names
from .region_layers import LABEL_TEXT
from .region_objects import RegionLayerWatch, complete_features, is_region_layer

HALO_KIND, HALO_COLOR, HALO_PX = "names", "black", 1.2
UPDATE_DELAY_MS = 100  # after the last change, also of the zoom
_SHIFTS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x], np.float64)


def is_name_halo(layer: Layer) -> bool:
    """Return whether a layer holds the dark edges of names."""
    return bool(layer.metadata.get(METADATA_PREFIX) == HALO_KIND)


class NameHalos:
    """One layer of dark names for each region layer that shows names."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self._session = session
        self._halos: WeakKeyDictionary[Shapes, Points] = WeakKeyDictionary()
        self._followed: WeakKeyDictionary[Shapes, bool] = WeakKeyDictionary()
        self._connections = connections
        self._debouncer = Debouncer(UPDATE_DELAY_MS, self.update)
        self._watch = RegionLayerWatch(session, connections, self._schedule)
        connections.connect(self._schedule, session.viewer.scene.camera.events.zoom)
        connections.connect(self._schedule, session.viewer.layers.events.reordered)
        self._schedule()

    def close(self) -> None:
        """Remove the halos."""
        self._debouncer.stop()
        for layer in self._halos:
            _set_transparent(layer, np.zeros(len(layer.data), bool))
        self._session.layers.remove(*self._halos.values())
        self._halos.clear()

    def halo_of(self, layer: Shapes) -> Points | None:
        """Return the layer of the dark names below a region layer."""
        halo = self._halos.get(layer)
        return halo if halo is not None and halo in self._session.viewer.layers else None

    def _schedule(self, event: object = None) -> None:
        self._debouncer.start()

    def update(self) -> None:
        """Follow names, places and zoom."""
        layers = self._session.viewer.layers
        regions = [layer for layer in layers if is_region_layer(layer)]
        for layer, halo in list(self._halos.items()):
            if layer not in regions:
                self._halos.pop(layer)
                self._session.layers.remove(halo)
        for layer in regions:
            self._follow(layer)
        named = {layer: names for layer in regions if (names := _shown_names(layer)).any()}
        for layer in regions:
            if layer not in named and (halo := self.halo_of(layer)) is not None:
                halo.visible = False
        if not named:
            return
        zoom = self._session.viewer.scene.camera.zoom
        outlines, anchors, sizes = [], [], []
        for layer, names in named.items():
            scale, translate = layer.scale[-2:], layer.translate[-2:]
            outlines += [(data * scale + translate) * zoom for data in layer.data]
            anchors.append((_anchors(layer) * scale + translate) * zoom)
            sizes.append(_text_sizes(names, layer.text.size))
        places = place_names(outlines, np.concatenate(anchors), np.concatenate(sizes))
        start = 0
        for layer, names in named.items():
            mine = places[start : start + len(names)] / zoom
            start += len(names)
            self._show(layer, names, (mine - layer.translate[-2:]) / layer.scale[-2:])

    def _follow(self, layer: Shapes) -> None:
        if layer not in self._followed:
            self._followed[layer] = True
            events = layer.events
            self._connections.connect(self._schedule, events.visible, layer.text.events.visible)

    def _show(self, layer: Shapes, names: NDArray[np.str_], places: NDArray[np.float64]) -> None:
        """Draw the names of a layer at their places, in data coordinates."""
        is_moved = ~np.isclose(places, _anchors(layer)).all(axis=1)  # or hidden
        _set_transparent(layer, is_moved & (names != ""))
        is_shown = np.isfinite(places).all(axis=1)
        px = HALO_PX / self._session.viewer.scene.camera.zoom / np.abs(layer.scale[-2:])
        shifted = (places[is_shown][None] + px * _SHIFTS[:, None]).reshape(-1, 2)
        moved = is_shown & is_moved
        labels = [*np.tile(names[is_shown], len(_SHIFTS)), *names[moved]]
        colors = [HALO_COLOR] * len(shifted) + [LABEL_TEXT["color"]] * int(moved.sum())
        halo = self.halo_of(layer) or self._add_halo(layer)
        halo.data, halo.size = np.concatenate([shifted, places[moved]]), 0
        table = {"label": labels, "color": colors}
        if any(halo.features[column].tolist() != table[column] for column in table):
            halo.features = table
            halo.refresh_text()
        halo.scale, halo.translate, halo.affine = layer.scale, layer.translate, layer.affine
        halo.visible = True

    def _add_halo(self, layer: Shapes) -> Points:
        text = layer.text
        halo = Points(
            np.zeros((1, 2)),
            features={"label": [""], "color": [HALO_COLOR]},
            text={**LABEL_TEXT, "size": text.size, "color": {"feature": "color"}},
            size=0,
            name=f"{layer.name}: names",
            scale=layer.scale,
            units=layer.units,
            axis_labels=layer.axis_labels,
            metadata={METADATA_PREFIX: HALO_KIND},
        )
        self._halos[layer] = halo
        stack, layers = self._session.layers, self._session.viewer.layers
        stack.attach_like(layer, halo)
        stack.unlist(halo)
        with preserve_selection(layers):
            layers.insert(layers.index(layer), halo)
        stack.unlist(halo)  # its row
        return halo


def _shown_names(layer: Shapes) -> NDArray[np.str_]:
    """Return the text of each shape, empty where none is drawn."""
    text = layer.text
    has_text = text.string.encoding_type != "ConstantStringEncoding"
    if not (has_text and text.visible and layer.visible and layer.ndim == 2):
        return np.full(len(layer.data), "")
    names: NDArray[np.str_] = complete_features(layer)["label"].to_numpy(str)
    return names


def _anchors(layer: Shapes) -> NDArray[np.float64]:
    """Return where napari draws the text of each shape."""
    anchors: NDArray[np.float64] = layer.text.compute_text_coords(list(layer.data), 2)[0]
    return anchors


def _text_sizes(names: NDArray[np.str_], points: float) -> NDArray[np.float64]:
    """Return height and width of names on the canvas in px; 0 of empty ones."""
    font = QFont()
    font.setPixelSize(round(points * 96 / 72))  # as napari draws text
    metrics = QFontMetricsF(font)
    sizes = [
        (metrics.height(), metrics.horizontalAdvance(name)) if name else (0, 0) for name in names
    ]
    return np.array(sizes, np.float64)


def _set_transparent(layer: Shapes, rows: NDArray[np.bool_]) -> None:
    """Hide the text of some shapes; new ones are white."""
    white = transform_color(LABEL_TEXT["color"])
    colors = np.repeat(white, len(rows), axis=0)
    colors[rows, 3] = 0
    now = layer.text.color(layer.features)
    if not np.array_equal(np.broadcast_to(now, colors.shape), colors):
        layer.text.color = {"array": colors, "default": white[0]} if rows.any() else white[0]

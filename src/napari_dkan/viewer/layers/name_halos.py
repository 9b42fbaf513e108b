"""Dark edges around the names of regions, which are read on pale tissue and on dark tiles alike.

napari draws a text in one colour and without an edge. Dark copies of the names, shifted by a pixel
of the screen, lie in a layer below that of the regions.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Layer, Points, Shapes

from ..session.layer_stack import preserve_selection
from ..session.slide_layer import METADATA_PREFIX
from ..session.viewer_session import ViewerSession
from ..widgets.signal_connections import Debouncer, SignalConnections
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
            self._update_halo(layer)

    def _follow(self, layer: Shapes) -> None:
        if layer not in self._followed:
            self._followed[layer] = True
            events = layer.events
            self._connections.connect(self._schedule, events.visible, layer.text.events.visible)

    def _update_halo(self, layer: Shapes) -> None:
        halo, text = self.halo_of(layer), layer.text
        has_text = text.string.encoding_type != "ConstantStringEncoding"
        names = complete_features(layer)["label"].to_numpy(str) if has_text else np.empty(0, str)
        rows = np.flatnonzero(names != "")
        if not (len(rows) and layer.visible and text.visible and layer.ndim == 2):
            if halo is not None:
                halo.visible = False
            return
        places = text.compute_text_coords([layer.data[row] for row in rows], 2)[0]
        px = HALO_PX / self._session.viewer.scene.camera.zoom / np.abs(layer.scale[-2:])
        shifted = (places[None] + px * _SHIFTS[:, None]).reshape(-1, 2)
        copies = np.tile(names[rows], len(_SHIFTS))
        if halo is None:
            halo = self._add_halo(layer)
        halo.data, halo.size = shifted, 0
        if halo.features["label"].tolist() != copies.tolist():
            halo.features = {"label": copies}
            halo.refresh_text()
        halo.scale, halo.translate, halo.affine = layer.scale, layer.translate, layer.affine
        halo.visible = True

    def _add_halo(self, layer: Shapes) -> Points:
        text = layer.text
        halo = Points(
            np.zeros((1, 2)),
            features={"label": [""]},
            text={"string": "{label}", "size": text.size, "color": HALO_COLOR, "anchor": "center"},
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

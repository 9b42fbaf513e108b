"""Sections follow the layer list: dropped ones are read, and they go with their layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Layer, Points

from ..links import Links
from .loading import Order
from .reading import Reading
from .section import KEY

if TYPE_CHECKING:
    from .state import Quality


class Following:
    """Tells the state what a person's dropping, closing and deleting means for it."""

    def __init__(self, quality: Quality, links: Links, reading: Reading) -> None:
        self._quality, self._reading = quality, reading
        self._adopted: WeakSet[Layer] = WeakSet()
        layers = quality.session.viewer.layers
        links.join(self._layers_changed, layers.events.inserted, layers.events.removed)
        links.join(self._slides_changed, quality.session.slides_changed)
        self._layers_changed()

    def _layers_changed(self, event: object = None) -> None:
        layers = list(self._quality.session.viewer.layers)
        for layer in layers:
            given = layer.metadata.get(KEY) if isinstance(layer, Points) else None
            if isinstance(given, Order) and layer not in self._adopted:
                self._adopted.add(layer)
                self._reading.order(replace(given, layer=layer))
        for section in list(self._quality.sections):
            if section.layer is not None and section.layer not in layers:
                section.layer = None
                self._quality.remove(section)

    def _slides_changed(self) -> None:
        """A section without its slide waits for it; a slide that opens may be the one."""
        session = self._quality.session
        for section in self._quality.sections:
            if section.slide is not None and section.slide not in session.slides:
                self._quality.lost_slide(section)
        for section in self._quality.sections:
            if section.slide is None and session.slide is not None:
                self._reading.order(Order((section.source,), section=section))

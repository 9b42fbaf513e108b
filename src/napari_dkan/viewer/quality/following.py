"""Sections follow the layer list: dropped ones are read, and they go with their layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari.layers import Layer, Points

from ..links import SignalConnections
from .loading import LoadRequest
from .reading import SectionLoader
from .section import SECTION_KEY

if TYPE_CHECKING:
    from .state import QualityController


class SectionLayerSync:
    """Tells the state what a person's dropping, closing and deleting means for it."""

    def __init__(self, quality: QualityController, connections: SignalConnections, loader: SectionLoader) -> None:
        self._quality, self._loader = quality, loader
        self._requested_layers: WeakSet[Layer] = WeakSet()
        layers = quality.session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_slides_changed, quality.session.slides_changed)
        self._on_layers_changed()

    def _on_layers_changed(self, event: object = None) -> None:
        layers = list(self._quality.session.viewer.layers)
        for layer in layers:
            given = layer.metadata.get(SECTION_KEY) if isinstance(layer, Points) else None
            if isinstance(given, LoadRequest) and layer not in self._requested_layers:
                self._requested_layers.add(layer)
                self._loader.enqueue(replace(given, layer=layer))
        for section in list(self._quality.sections):
            if section.layer is not None and section.layer not in layers:
                section.layer = None
                self._quality.remove_section(section)

    def _on_slides_changed(self) -> None:
        """A section without its slide waits for it; a slide that opens may be the one."""
        session = self._quality.session
        for section in self._quality.sections:
            if section.slide is not None and section.slide not in session.slides:
                self._quality.detach_slide(section)
        for section in self._quality.sections:
            if section.slide is None and session.slide is not None:
                self._loader.enqueue(LoadRequest((section.source,), section=section))

"""Labels layers as regions: what is painted, or a mask that was opened as a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from psygnal import Signal
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from ...errors import DkanError, SpotsError
from ...spatial.masks import polygons_from_mask, mask_scale
from ..lane import JobFailure, JobRunner
from ..session import ViewerSlide
from ..slides import AXIS_LABELS, MICROMETER_UNITS

MAX_TRACED_SIZE = 8_192  # px; of larger layers every second, third, ... pixel is read

# outlines as they were traced last, or why they cannot be
_outline_cache: WeakKeyDictionary[Labels, BaseGeometry | str] = WeakKeyDictionary()


def get_label_outline(layer: Labels) -> BaseGeometry:
    """The region in the layer's own pixels (x, y), corner to corner; empty before it is traced."""
    known = _outline_cache.get(layer)
    return known if isinstance(known, BaseGeometry) else MultiPolygon()


class LabelOutlines:
    """Outlines of Labels layers, traced off the GUI thread and kept until the layer changes."""

    changed = Signal()  # an outline is there now

    def __init__(self) -> None:
        self._runner = JobRunner("labels")
        self._connected_layers: WeakKeyDictionary[Labels, bool] = WeakKeyDictionary()

    def outline_of(self, layer: Labels) -> BaseGeometry | None:
        """As `traced`, but None while it is being traced.

        Raises SpotsError when the layer cannot be one.
        """
        if layer.ndim != 2:
            raise SpotsError(f"The layer '{layer.name}' has {layer.ndim} dimensions; 2 are needed.")
        if layer not in self._connected_layers:
            self._connected_layers[layer] = True
            events = layer.events
            for event in (events.paint, events.data, events.labels_update):
                event.connect(lambda event=None, layer=layer: self._invalidate(layer))
            for event in (events.show_selected_label, events.selected_label):
                event.connect(lambda event=None, layer=layer: self._on_selection_changed(layer))
        known = _outline_cache.get(layer)
        if isinstance(known, str):
            raise SpotsError(known)
        if known is None and not self._runner.busy:
            self._trace(layer)
        return known

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

    def _on_selection_changed(self, layer: Labels) -> None:
        if layer.show_selected_label or layer in _outline_cache:
            self._invalidate(layer)

    def _invalidate(self, layer: Labels) -> None:
        _outline_cache.pop(layer, None)
        self._runner.cancel()
        self.changed.emit()

    def _trace(self, layer: Labels) -> None:
        data: Any = layer.data[0] if layer.multiscale else layer.data
        name = f"The layer '{layer.name}'"
        only = layer.selected_label if layer.show_selected_label else None
        found: list[BaseGeometry] = []

        def job() -> Iterator[None]:
            step = -(-max(data.shape) // MAX_TRACED_SIZE)
            labels = np.asarray(data[::step, ::step])
            mask = labels != 0 if only is None else labels == only
            regions = polygons_from_mask(mask, (step, step), name)
            found.append(regions.get(1, MultiPolygon()))
            yield

        def end(failure: JobFailure | None) -> None:
            _outline_cache[layer] = found[0] if failure is None else failure.message
            self.changed.emit()

        self._runner.start(job, lambda item: None, end)


def fit_labels_to_slide(layer: Labels, slide: ViewerSlide) -> None:
    """Lay labels that come as bare pixels, in no place of their own, over the whole slide.

    Their resolution is told by their size; where it does not fit they stay where they are.
    """
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    size = slide.slide.width, slide.slide.height
    bare = np.allclose(layer.scale, 1) and np.allclose(layer.translate, 0)
    if layer.ndim != 2 or not bare or slide.pixel_size is None:
        return
    try:
        x, y = mask_scale(shape, *size)
    except DkanError:
        return
    layer.scale = (y * slide.mpp, x * slide.mpp)
    # corner on corner: napari places the middle of a pixel
    layer.translate = ((y - 1) / 2 * slide.mpp, (x - 1) / 2 * slide.mpp)
    layer.units, layer.axis_labels = MICROMETER_UNITS, AXIS_LABELS

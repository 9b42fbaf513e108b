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
from ...spatial.masks import mask_regions, mask_scale
from ..lane import Failure, Lane
from ..session import OpenSlide
from ..slides import AXES, UNITS

LONGEST = 8_192  # px; of larger layers every second, third, ... pixel is read

# outlines as they were traced last, or why they cannot be
_known: WeakKeyDictionary[Labels, BaseGeometry | str] = WeakKeyDictionary()


def traced(layer: Labels) -> BaseGeometry:
    """The region in the layer's own pixels (x, y), corner to corner; empty before it is traced."""
    known = _known.get(layer)
    return known if isinstance(known, BaseGeometry) else MultiPolygon()


class LabelRegions:
    """Outlines of Labels layers, traced off the GUI thread and kept until the layer changes."""

    changed = Signal()  # an outline is there now

    def __init__(self) -> None:
        self._lane = Lane("labels")
        self._watched: WeakKeyDictionary[Labels, bool] = WeakKeyDictionary()

    def of(self, layer: Labels) -> BaseGeometry | None:
        """As `traced`, but None while it is being traced.

        Raises SpotsError when the layer cannot be one.
        """
        if layer.ndim != 2:
            raise SpotsError(f"The layer '{layer.name}' has {layer.ndim} dimensions; 2 are needed.")
        if layer not in self._watched:
            self._watched[layer] = True
            events = layer.events
            for event in (events.paint, events.data, events.labels_update):
                event.connect(lambda event=None, layer=layer: self._forget(layer))
            for event in (events.show_selected_label, events.selected_label):
                event.connect(lambda event=None, layer=layer: self._chosen(layer))
        known = _known.get(layer)
        if isinstance(known, str):
            raise SpotsError(known)
        if known is None and not self._lane.busy:
            self._trace(layer)
        return known

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def _chosen(self, layer: Labels) -> None:
        if layer.show_selected_label or layer in _known:
            self._forget(layer)

    def _forget(self, layer: Labels) -> None:
        _known.pop(layer, None)
        self._lane.cancel()
        self.changed.emit()

    def _trace(self, layer: Labels) -> None:
        data: Any = layer.data[0] if layer.multiscale else layer.data
        name = f"The layer '{layer.name}'"
        only = layer.selected_label if layer.show_selected_label else None
        found: list[BaseGeometry] = []

        def job() -> Iterator[None]:
            step = -(-max(data.shape) // LONGEST)
            labels = np.asarray(data[::step, ::step])
            mask = labels != 0 if only is None else labels == only
            regions = mask_regions(mask, (step, step), name)
            found.append(regions.get(1, MultiPolygon()))
            yield

        def end(failure: Failure | None) -> None:
            _known[layer] = found[0] if failure is None else failure.sentence
            self.changed.emit()

        self._lane.start(job, lambda item: None, end)


def lay_on(layer: Labels, slide: OpenSlide) -> None:
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
    layer.units, layer.axis_labels = UNITS, AXES

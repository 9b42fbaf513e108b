"""The layer list of a viewer: order, selection, and layers that the plugin adds and removes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from napari.layers import Layer, Points

from ..widgets.layer_list_rows import LayerListRows
from ..widgets.signal_connections import SignalConnections
from .slide_layer import METADATA_PREFIX, SlideLayerRegistry, ViewerSlide

if TYPE_CHECKING:
    from napari.components import ViewerModel


class LayerStack:
    """Inserts and removes layers without a change of the user's selection.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    registry : SlideLayerRegistry
        Records the slide to which a layer belongs.
    """

    def __init__(self, viewer: ViewerModel, registry: SlideLayerRegistry) -> None:
        self._viewer = ref(viewer)
        self._registry = registry
        self._removing = False
        self._unlisted: WeakSet[Layer] = WeakSet()
        self._rows = LayerListRows(self._unlisted.__contains__)
        viewer.layers.selection.events.active.connect(self._on_active_changed)

    @property
    def layers(self) -> Any:
        """napari's layer list."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer.layers

    def attach(self, slide: ViewerSlide, layer: Layer) -> None:
        """Record that a layer belongs to a slide."""
        self._registry.attach(slide, layer)

    def attach_like(self, layer: Layer, new: Layer) -> None:
        """Record that a new layer belongs to the slide of another layer."""
        self._registry.attach_like(layer, new)

    def insert(
        self,
        layer: Layer,
        slide: ViewerSlide | None = None,
        above: Iterable[Layer] | None = None,
        listed: bool = True,
    ) -> None:
        """Insert a layer; the selection does not change.

        Parameters
        ----------
        layer : Layer
        slide : ViewerSlide or None
            The slide to which the layer belongs.
        above : iterable of Layer or None
            The layer is inserted directly above the topmost of these; None inserts it on top.
        listed : bool
            Whether napari's list of layers shows it; a layer that marks another one is not listed.
        """
        if not listed:
            self.unlist(layer)
        layers = self.layers
        if slide is not None:
            self._registry.attach(slide, layer)
        below = [] if above is None else [layers.index(one) for one in above if one in layers]
        with preserve_selection(layers):
            layers.insert(max(below) + 1 if below else len(layers), layer)
        if not listed:
            self._rows.hide(layers)

    def unlist(self, *layers: Layer) -> None:
        """Leave layers out of napari's list; they are drawn all the same."""
        self._unlisted.update(layers)
        self._rows.hide(self.layers)

    def is_listed(self, layer: Layer) -> bool:
        """Return whether napari's list shows a layer."""
        return layer not in self._unlisted

    def list_user_points(self) -> list[Points]:
        """Return the Points layers that hold spots: drawn, imported or made of a file's spots.

        Those that show results or mark other layers are not among them.
        """
        return [
            layer
            for layer in self.layers
            if isinstance(layer, Points)
            and METADATA_PREFIX not in layer.metadata
            and self.is_listed(layer)
        ]

    def _on_active_changed(self, event: object = None) -> None:
        """Select a listed layer where napari, after a removal, selects its neighbour."""
        layers = self.layers
        active = layers.selection.active
        if active is None or active not in self._unlisted or active not in layers:
            return
        index = layers.index(active)
        below = [layer for layer in layers[:index] if self.is_listed(layer)]
        listed = below or [layer for layer in layers if self.is_listed(layer)]
        layers.selection = {listed[-1]} if listed else set()

    def remove(self, *removed: Layer | None) -> None:
        """Remove layers; None and layers that are not in the list are skipped.

        Callbacks of `watch_removal` are not called.
        """
        before, self._removing = self._removing, True
        try:
            remove_layers(self.layers, removed)
        finally:
            self._removing = before

    @property
    def is_removing(self) -> bool:
        """Whether layers are removed by `remove`, and not by the user."""
        return self._removing

    def watch_removal(
        self,
        watched: Callable[[], Iterable[Layer | None]],
        callback: Callable[[], None],
        connections: SignalConnections,
    ) -> None:
        """Call ``callback`` when one of the layers was removed, but not by `remove`.

        Parameters
        ----------
        watched : callable
            Returns the layers to watch; called on every removal.
        callback : callable
        connections : SignalConnections
            Ends the watching with ``disconnect_all``.
        """

        def on_removed(event: Any) -> None:
            if not self._removing and any(layer is event.value for layer in watched()):
                callback()

        connections.connect(on_removed, self.layers.events.removed)


MANY_OBJECTS = 100_000  # of the million that napari and torch bring along


@contextmanager
def preserve_selection(layers: Any) -> Iterator[None]:
    """Restore the selection of a layer list on exit, without layers that were removed.

    napari selects an inserted layer, which shows its controls for a moment and takes a quarter of
    the time of the insertion; so it is told not to.
    """
    selected = set(layers.selection)
    activates = getattr(layers, "_activate_on_insert", True)
    layers._activate_on_insert = False
    try:
        yield
    finally:
        layers._activate_on_insert = activates
    layers.selection = selected & set(layers)


def remove_layers(layers: Any, removed: Iterable[Layer | None]) -> None:
    """Remove from a layer list those of the layers that are in it."""
    with _freeze_gc():
        for layer in removed:
            if layer is not None and layer in layers:
                layers.remove(layer)


@contextmanager
def _freeze_gc() -> Iterator[None]:
    """Exclude existing objects from garbage collection.

    napari collects garbage after every removed layer, which takes longer than the removal. Where
    objects are excluded already they stay so, and the others are few.
    """
    if gc.get_freeze_count() > MANY_OBJECTS:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

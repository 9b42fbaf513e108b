"""Records what the user changes, so that it can be undone: regions, maps, limits and pins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from napari.layers import Labels, Layer, Shapes
from napari.layers.base import ActionType

from ..session.shortcut_actions import register_actions, shortcut_label
from ..session.slide_layer import METADATA_PREFIX
from ..session.undo_stack import UndoStack
from ..session.viewer_session import ViewerSession, get_component
from ..widgets.signal_connections import Debouncer, SignalConnections
from .region_objects import is_region_layer
from .shapes_state import ShapesState, read_shapes
from .undoable_changes import LayersRemoved, LimitsChange, PinsChange, RemovedLayer, ShapesChange

BEGINNINGS = (ActionType.ADDING, ActionType.CHANGING, ActionType.REMOVING)
LABELS_UNDO, LABELS_REDO = "Control-Z", "Control-Shift-Z"  # of napari, fixed
RECORD_DELAY_MS = 250  # what changes many times within this time is one change


class UndoRecorder:
    """Follows a session and records changes a moment after the last of a series.

    Attributes
    ----------
    stack : UndoStack
    """

    def __init__(self, session: ViewerSession) -> None:
        self._session, self.stack = session, UndoStack(session)
        self._states: dict[Shapes, ShapesState] = {}
        self._connections: dict[Shapes, SignalConnections] = {}
        self._removed: list[RemovedLayer] = []
        self._limits, self._pinned = session.settings.contrast_limits, session.pinned
        self._is_stepping = False
        self._debouncer = Debouncer(RECORD_DELAY_MS, self._on_pause)
        layers = session.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removing.connect(self._on_removing)
        session.settings_changed.connect(self._schedule)
        session.pinned_changed.connect(self._on_pinned)
        session.checkpoint_changed.connect(self._take_pins)  # which choose other pins
        session.zero_shot_changed.connect(self._take_pins)
        for layer in layers:
            self._watch(layer)
        register_actions(session.viewer, undo=self.undo, redo=self.redo)

    def undo(self) -> None:
        """Change the last change back; a shape that is being drawn is the last one."""
        self._step(self.stack.undo)

    def redo(self) -> None:
        """Change again what was changed back last."""
        self._step(self.stack.redo)

    def _step(self, step: Callable[[], None]) -> None:
        if not self._finish_drawing():
            return
        self._is_stepping = True
        try:
            step()
        finally:
            self._is_stepping = False
            self._take_states()

    def _finish_drawing(self) -> bool:
        """Record what is pending; return False if all there was is a shape with too few corners."""
        begun = [layer for layer in self._states if layer._is_creating]
        for layer in begun:
            layer._finish_drawing()
        if self._record() or not begun:
            return True
        self._session.message.show("Undone: begin a region.")
        return False

    # ---- following the session ---------------------------------------------------------

    def _schedule(self, event: object = None) -> None:
        self._debouncer.start()

    def _on_pinned(self) -> None:
        if not self._is_stepping:
            self._record()

    def _take_pins(self) -> None:
        self._pinned = self._session.pinned

    def _watch(self, layer: Layer) -> None:
        if isinstance(layer, Labels):
            self._share_keys(layer)
        is_tissue = layer.metadata.get(METADATA_PREFIX) == "tissue"
        if not isinstance(layer, Shapes) or not (is_region_layer(layer) or is_tissue):
            return
        connections = self._connections[layer] = SignalConnections()
        events = layer.events
        connections.connect(self._on_data, events.data)
        connections.connect(self._schedule, events.features, events.edge_color, events.face_color)
        self._states[layer] = read_shapes(layer)

    def _share_keys(self, layer: Labels) -> None:
        """Let a Labels layer keep napari's keys for its painting only while there is some to undo.

        Otherwise they would do nothing: a layer of domains, say, cannot be painted in.
        """

        def undo(labels: Labels) -> None:
            if labels.editable and labels._undo_history:
                labels.undo()
            else:
                self.undo()

        def redo(labels: Labels) -> None:
            if labels.editable and labels._redo_history:
                labels.redo()
            else:
                self.redo()

        layer.bind_key(LABELS_UNDO, undo, overwrite=True)
        layer.bind_key(LABELS_REDO, redo, overwrite=True)

    def _on_data(self, event: Any) -> None:
        """Record what is there before another change begins, so that each can be undone alone."""
        if event.action in BEGINNINGS and not self._is_stepping:
            self._record_shapes()
        self._schedule()

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _on_removing(self, event: Any) -> None:
        session = self._session
        layer = session.viewer.layers[event.index]
        self._record_shapes()
        if not session.layers.is_removing:
            overlay = next((o for o in session.overlays if o.layer is layer), None)
            is_worth = layer in self._states and len(layer.data) > 0
            if overlay is not None:
                is_worth = bool(overlay.prediction.predicted_mask.any())
            if is_worth:
                slide = session.viewer_slides.layer_registry.slide_of(layer)
                mpp = None if slide is None else slide.mpp
                above = next(map(ref, session.viewer.layers[event.index + 1 :]), None)
                removed = RemovedLayer(layer, event.index, above, overlay, slide, mpp)
                self._removed.append(removed)
                self._schedule()
        if layer in self._states:
            del self._states[layer]
            self._connections.pop(layer).disconnect_all()

    # ---- recording ---------------------------------------------------------------------

    def _on_pause(self) -> None:
        if any(layer._is_creating or layer._is_moving for layer in self._states):
            self._schedule()
        else:
            self._record()

    def _record(self) -> bool:
        """Push what has changed since the last time; return whether anything has."""
        session, stack = self._session, self.stack
        recorded = self._record_shapes()
        limits, pinned = session.settings.contrast_limits, session.pinned
        if limits != self._limits:
            stack.push(LimitsChange(session, self._limits, limits))
            recorded = True
        if pinned != self._pinned:
            stack.push(PinsChange(session, self._pinned, pinned))
            recorded = True
        self._limits, self._pinned = limits, pinned
        removed, self._removed = tuple(self._removed), []
        if removed:
            change = LayersRemoved(session, removed)
            stack.push(change)
            recorded = True
            text = change.text[:1].upper() + change.text[1:]
            session.message.show(f"{text}: {shortcut_label('undo')} undoes it.")
        return recorded

    def _record_shapes(self) -> bool:
        recorded = False
        for layer, before in self._states.items():
            if layer._is_creating:
                continue
            after = read_shapes(layer, before)
            if not after.equals(before):
                self._states[layer] = after
                self.stack.push(ShapesChange(self._session, layer, before, after))
                recorded = True
        return recorded

    def _take_states(self) -> None:
        """Take what is there after a step as known."""
        self._debouncer.stop()
        self._states = {layer: read_shapes(layer) for layer in self._states}
        self._limits, self._pinned = self._session.settings.contrast_limits, self._session.pinned


def get_undo_recorder(session: ViewerSession) -> UndoRecorder:
    """Return the recorder of a session; create it at first use."""
    return get_component(session, UndoRecorder)

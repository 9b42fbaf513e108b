"""Undo and redo: a walk by mouse and keys in one window, and the shapes of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from shapely.geometry import Point

from napari_dkan.spatial.region_files import NamedRegion
from napari_dkan.viewer.layers.region_objects import (
    RegionObject,
    classify,
    delete,
    prepare_drawing,
    recolor,
    rename,
)
from napari_dkan.viewer.layers.shapes_state import describe_difference, read_shapes
from napari_dkan.viewer.layers.undo_recorder import get_undo_recorder
from napari_dkan.viewer.session import undo_stack
from napari_dkan.viewer.session.status_message import StatusMessage

from .prediction_steps import finish
from .test_clicks import canvas_of, centre_of, drag_lasso

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

LEFT, CONTROL = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier


def press_keys(panel: PredictWidget, *modifiers) -> None:
    held = CONTROL
    for modifier in modifiers:
        held |= modifier
    QTest.keyClick(canvas_of(panel), Qt.Key.Key_Z, held)
    QApplication.processEvents()


def test_walk_draw_change_delete_map_limits_pins(shown: PredictWidget, until, qtbot):
    session, layers = shown.session, shown.session.viewer.layers
    said = shown.message_label.text

    QTest.mouseClick(shown.target_box.draw_button, LEFT)
    drag_lasso(shown, qtbot, half=120)
    regions = shown.target_box.regions_layer()
    until(lambda: regions.mode == "pan_zoom")
    outline = np.array(regions.data[0])
    press_keys(shown)
    assert len(regions.data) == 0 and said() == "Undone: draw Region 1."
    press_keys(shown, Qt.KeyboardModifier.ShiftModifier)
    np.testing.assert_array_equal(regions.data[0], outline)
    assert said() == "Done again: draw Region 1."

    regions.mode = "select"  # napari's own tools: drag the shape, then delete it by its key
    canvas, centre = canvas_of(shown), centre_of(shown)
    on_edge = centre + QPoint(120, 0)
    QTest.mouseMove(canvas, on_edge)
    QTest.mousePress(canvas, LEFT, pos=on_edge)
    for step in range(1, 6):
        QTest.mouseMove(canvas, on_edge + QPoint(8 * step, 0))
        qtbot.wait(5)
    QTest.mouseRelease(canvas, LEFT, pos=on_edge + QPoint(40, 0))
    QApplication.processEvents()
    moved = np.array(regions.data[0])
    assert np.abs(moved - outline).max() > 1
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    QApplication.processEvents()
    assert len(regions.data) == 0
    qtbot.wait(300)
    press_keys(shown)
    np.testing.assert_array_equal(regions.data[0], moved)
    press_keys(shown)
    np.testing.assert_array_equal(regions.data[0], outline)
    assert said() == "Undone: change Region 1."

    regions.mode = "pan_zoom"
    until(lambda: shown.target_box.target is not None)
    QTest.mouseClick(shown.target_box.predict_button, LEFT)
    finish(shown, until)
    (overlay,) = session.overlays

    above = session.viewer.add_points(np.zeros((1, 2)))
    names = [layer.name for layer in layers]
    layers.selection.active = regions
    QTest.mouseClick(session.viewer.window._qt_viewer.layerButtons.deleteButton, LEFT)
    until(lambda: regions not in layers and "undoes it" in said())
    press_keys(shown)  # the layer of their names, which went with them, is below them again, too
    until(lambda: [layer.name for layer in layers] == names)
    layers.remove(above)

    place, drawn = layers.index(overlay.layer), np.array(overlay.layer.data)
    layers.selection.active = overlay.layer
    QTest.mouseClick(session.viewer.window._qt_viewer.layerButtons.deleteButton, LEFT)
    QApplication.processEvents()
    assert not session.overlays
    until(lambda: "undoes it" in said())
    where, button = shown.sections["Where"].header, shown.undo_buttons.undo_button
    assert button.isVisible() and button.width() < 40  # small, in a row that is there anyway
    middle = button.mapTo(shown, button.rect().center())
    assert 0 <= where.mapFrom(shown, middle).y() <= where.height()
    QTest.mouseClick(shown.undo_buttons.undo_button, LEFT)
    assert session.overlays == [overlay] and layers.index(overlay.layer) == place
    np.testing.assert_array_equal(overlay.layer.data, drawn)
    QTest.mouseClick(shown.undo_buttons.redo_button, LEFT)
    assert not session.overlays and overlay.layer not in layers
    press_keys(shown)
    assert session.overlays == [overlay]

    # napari's own slider of the map's limits: one step for a drag, and for all maps of the gene.
    layers.selection.active = overlay.layer
    controls = session.viewer.window._qt_viewer.controls
    slider = controls.widgets[overlay.layer]._contrast_limits_control.contrast_limits_slider
    until(slider.isVisible)
    limits = overlay.layer.contrast_limits
    window, y = slider.window().windowHandle(), slider.height() // 2
    places = [
        slider.mapTo(slider.window(), QPoint(x, y)) for x in range(slider.width() - 6, 40, -6)
    ]
    QTest.mousePress(window, LEFT, pos=places[0])
    for place in places[1 : len(places) // 2]:
        QTest.mouseMove(window, place)
        qtbot.wait(1)
    qtbot.wait(400)  # held
    changed = overlay.layer.contrast_limits
    assert changed != limits and session.settings.contrast_limits.by_gene == {}
    QTest.mouseRelease(window, LEFT, pos=places[len(places) // 2])
    until(lambda: session.settings.contrast_limits.by_gene != {})
    qtbot.wait(300)
    press_keys(shown)
    assert said() == "Undone: colour limits."
    assert overlay.layer.contrast_limits == limits and not session.settings.contrast_limits.by_gene

    pinned, gene = session.pinned, session.gene
    QTest.mouseClick(shown.gene_box.pin_button, LEFT)
    QTest.keyClick(canvas, "X", Qt.KeyboardModifier.ShiftModifier)
    assert session.settings.contrast_limits.fixed is not None and session.pinned != pinned
    qtbot.wait(300)
    press_keys(shown)
    press_keys(shown)
    assert session.settings.contrast_limits.fixed is None and session.pinned == pinned
    assert gene in said()
    press_keys(shown, Qt.KeyboardModifier.ShiftModifier)
    assert session.pinned != pinned
    press_keys(shown)

    layer = session.viewer.add_labels(np.zeros((40, 40), np.uint8))  # whose undo napari keeps
    layer.fill((0, 0), 3)
    before = get_undo_recorder(session).stack.undo_text
    press_keys(shown)
    stack = get_undo_recorder(session).stack
    assert not layer.data.any() and stack.undo_text == before
    press_keys(shown)  # nothing is painted any more
    assert said() == f"Undone: {before}." and stack.redo_text == before
    layer.fill((0, 0), 3)
    layer.editable = False  # as that of domains
    press_keys(shown, Qt.KeyboardModifier.ShiftModifier)
    assert stack.undo_text == before and layer.data.all()


@pytest.fixture
def layer() -> Shapes:
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], float)
    made = Shapes([square, square + 20], shape_type="polygon", edge_color=["red", "blue"])
    names = {"name": ["A", ""], "classification": ["Tumor", "Stroma"]}
    made.features = {**names, "label": ["A (Tumor)", "Stroma"]}
    return made


def region(layer: Shapes, row: int) -> RegionObject:
    return RegionObject(NamedRegion(Point(0, 0), "A", "Tumor"), layer, (row,))


def test_shapes_come_back_with_names_classes_and_colours(layer: Shapes):
    """Each change is named, and both ways lead to what was there."""
    steps = (
        ("delete Stroma", lambda: delete([region(layer, 1)])),
        ("rename A", lambda: rename(region(layer, 0), "B")),
        ("class of B", lambda: classify([region(layer, 0)], "Nest", "green")),
        ("colour of B", lambda: recolor([region(layer, 0)], "white")),
        ("draw Nest", lambda: layer.add_polygons([np.eye(3, 2) * 5])),
        ("change Nest", lambda: _move_first(layer)),
        ("delete 2 shapes", lambda: delete([region(layer, 0), region(layer, 1)])),
    )
    prepare_drawing(layer, "Nest", "green")
    states = [read_shapes(layer)]
    for name, step in steps:
        step()
        states.append(read_shapes(layer, states[-1]))
        assert describe_difference(*states[-2:]) == name
    assert states[2].vertices[0] is states[1].vertices[0]  # arrays are shared
    assert states[-1].kinds == ()
    for state in (*reversed(states), *states):
        state.restore(layer)
        assert read_shapes(layer).equals(state)
    assert layer.feature_defaults["classification"].iloc[0] == "Nest"


def _move_first(layer: Shapes) -> None:
    moved = list(layer.data)
    moved[1] = moved[1] + 3
    layer.data = moved


@dataclass(frozen=True)
class Counted:
    """A change of which the test can say whether it is possible."""

    text: str
    done: list[str]
    nbytes: int = 1
    possible: bool = True

    def undo(self) -> bool:
        self.done.append(f"-{self.text}")
        return self.possible

    def redo(self) -> bool:
        self.done.append(f"+{self.text}")
        return self.possible


def test_stack_is_bounded_and_skips_what_is_no_longer_possible(monkeypatch):
    session = SimpleNamespace(message=StatusMessage(), viewer=SimpleNamespace(status=""))
    monkeypatch.setattr(undo_stack, "MAX_CHANGES", 4)
    monkeypatch.setattr(undo_stack, "MAX_BYTES", 10)
    stack, done = undo_stack.UndoStack(session), list[str]()
    for text, nbytes, possible in (
        ("first", 1, True),
        ("large", 8, True),
        ("small", 1, True),
        ("gone", 1, False),
        ("last", 7, True),
    ):
        stack.push(Counted(text, done, nbytes, possible))
    assert done == []  # the user has done it already
    for said in ("last", "small"):
        stack.undo()
        assert session.message.text == session.viewer.status == f"Undone: {said}."
    stack.undo()
    assert session.message.text == "Nothing to undo." and done == ["-last", "-gone", "-small"]
    stack.redo()
    assert session.message.text == "Done again: small." and stack.redo_text == "last"
    stack.push(Counted("new", done))
    assert stack.redo_text == "" and stack.undo_text == "new"

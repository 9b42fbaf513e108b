"""What a click on the slide does in each mode, by real mouse and key events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dkan.viewer.jobs.target_from_layers import region_from_layer
from napari_dkan.viewer.layers.region_objects import list_region_objects
from napari_dkan.viewer.session.viewer_settings import TargetMode

from .prediction_steps import finish

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

LEFT = Qt.MouseButton.LeftButton


def canvas_of(panel: PredictWidget):
    return panel.session.viewer.window._qt_viewer.canvas.native


def centre_of(panel: PredictWidget) -> QPoint:
    canvas = canvas_of(panel)
    return QPoint(canvas.width() // 2, canvas.height() // 2)


def click_canvas(panel: PredictWidget, place: QPoint) -> None:
    QTest.mouseMove(canvas_of(panel), place)
    QTest.mouseClick(canvas_of(panel), LEFT, pos=place)
    QApplication.processEvents()


def choose(panel: PredictWidget, mode: TargetMode) -> None:
    button = panel.target_box.mode_buttons[mode]
    QTest.mouseClick(button, LEFT, pos=QPoint(8, button.height() // 2))
    QApplication.processEvents()


def drag_lasso(panel: PredictWidget, qtbot, half: int = 60, right: int = 0) -> None:
    canvas, centre = canvas_of(panel), centre_of(panel) + QPoint(right, 0)
    angles = np.linspace(0, 2 * np.pi, 24)
    ring = [centre + QPoint(round(half * np.cos(a)), round(half * np.sin(a))) for a in angles]
    QTest.mouseMove(canvas, ring[0])
    QTest.mousePress(canvas, LEFT, pos=ring[0])
    for place in ring[1:]:
        QTest.mouseMove(canvas, place)
        qtbot.wait(5)
    QTest.mouseRelease(canvas, LEFT, pos=ring[-1])
    QApplication.processEvents()
    qtbot.wait(50)


def is_framed(panel: PredictWidget) -> bool:
    """Whether the slide has a frame around the shown spot."""
    (frame,) = [layer for layer in panel.session.viewer.layers if layer.name == "this spot"]
    return bool(np.allclose(frame.data[0][::-1], panel.session.spot.target.spots.xy[-1]))


def test_choosing_click_puts_the_lasso_away(shown: PredictWidget, until):
    choose(shown, TargetMode.REGION)
    regions = shown.target_box.regions_layer()
    assert regions.mode == "add_polygon_lasso"
    choose(shown, TargetMode.CLICK)
    assert regions.mode == "pan_zoom"
    click_canvas(shown, centre_of(shown))
    until(lambda: shown.session.spot is not None)
    assert len(regions.data) == 0 and is_framed(shown)


def test_a_finished_region_puts_the_lasso_away(shown: PredictWidget, until, qtbot):
    choose(shown, TargetMode.REGION)
    drag_lasso(shown, qtbot)
    regions = shown.target_box.regions_layer()
    until(lambda: regions.mode == "pan_zoom")
    assert len(regions.data) == 1
    click_canvas(shown, centre_of(shown))  # no tile is predicted yet, so the click predicts
    until(lambda: shown.session.spot is not None)
    assert len(regions.data) == 1


def test_regions_drawn_here_have_names_and_holes(shown: PredictWidget, until, qtbot):
    """So that two of them can be compared; what lies inside one is a hole in it."""
    slide = shown.session.slide
    for half, right in ((60, -70), (20, -70), (40, 70)):
        QTest.mouseClick(shown.target_box.draw_button, LEFT)
        until(lambda: shown.target_box.plan_label.text().startswith("Draw Region"))
        drag_lasso(shown, qtbot, half, right)
        until(lambda: shown.target_box.regions_layer().mode == "pan_zoom")
    until(lambda: "tiles" in shown.target_box.plan_label.text())
    regions = shown.target_box.regions_layer()
    ring, disc = (o.region for o in list_region_objects([regions], slide))
    assert [ring.classification, disc.classification] == ["Region 1", "Region 2"]
    assert ring.color != disc.color
    assert ring.geometry.area == pytest.approx(2 * disc.geometry.area, rel=0.1)  # 60 and 20, 40
    target = region_from_layer(regions, slide)
    assert target.area == pytest.approx(ring.geometry.area + disc.geometry.area)


def test_escape_puts_the_lasso_away_and_finishes_no_shape(shown: PredictWidget, until, qtbot):
    choose(shown, TargetMode.REGION)
    regions = shown.target_box.regions_layer()
    QTest.keyClick(canvas_of(shown), Qt.Key.Key_Escape)
    QApplication.processEvents()
    assert regions.mode == "pan_zoom"
    QTest.mouseClick(shown.target_box.draw_button, LEFT)
    assert regions.mode == "add_polygon_lasso"
    click_canvas(shown, centre_of(shown))  # a begun shape of one corner
    QTest.keyClick(canvas_of(shown), Qt.Key.Key_Escape)
    until(lambda: regions.mode == "pan_zoom")
    assert len(regions.data) == 0


def test_a_click_on_a_map_shows_its_tile_in_any_mode(
    shown: PredictWidget, until, qtbot, monkeypatch
):
    choose(shown, TargetMode.REGION)
    drag_lasso(shown, qtbot, half=120)
    until(lambda: shown.target_box.target is not None)
    QTest.mouseClick(shown.target_box.predict_button, LEFT)
    finish(shown, until)
    (overlay,) = shown.session.overlays
    monkeypatch.setattr(
        shown.session.slide.slide, "read_patch", lambda *a: pytest.fail("pixels are not needed")
    )
    overlay.prediction.values[:, 1:] = np.nan  # genes that nobody has looked at yet
    for mode in (TargetMode.REGION, TargetMode.CLICK, TargetMode.TISSUE):
        shown.session.set_spot(None)
        choose(shown, mode)
        click_canvas(shown, centre_of(shown))
        until(lambda: shown.session.spot is not None)
        spot = shown.session.spot
        assert np.isfinite(spot.values).all() and len(spot.values) == 1
        assert spot.target.spots.xy[0].tolist() in overlay.prediction.target.spots.xy.tolist()
        assert is_framed(shown) and len(shown.session.overlays) == 1
    assert len(shown.spot_box.gene_bars.rows) == len(spot.panel.symbols)


def test_a_click_beside_the_slide_says_why_nothing_is_predicted(shown: PredictWidget):
    choose(shown, TargetMode.TISSUE)
    click_canvas(shown, QPoint(3, 3))
    assert "beside the slide" in shown.message_label.text()


def test_the_frame_moves_and_is_not_made_anew(shown: PredictWidget, until):
    session = shown.session
    click_canvas(shown, centre_of(shown))
    until(lambda: session.spot is not None and not shown.click_predictor.busy)
    frame, first = session.viewer.layers["this spot"], session.spot
    click_canvas(shown, centre_of(shown) + QPoint(25, 10))
    until(lambda: session.spot is not first and not shown.click_predictor.busy)
    assert session.viewer.layers["this spot"] is frame and is_framed(shown)


def test_the_frame_goes_with_its_spot(shown: PredictWidget, until):
    click_canvas(shown, centre_of(shown))
    until(lambda: shown.session.spot is not None)
    layers = shown.session.viewer.layers
    active = layers.selection.active
    assert is_framed(shown)
    layers.remove("this spot")
    shown.session.set_spot(shown.session.spot)
    assert is_framed(shown) and layers.selection.active is active
    shown.session.set_spot(None)
    assert "this spot" not in layers


def test_a_click_before_the_model_is_loaded_waits_for_it(shown: PredictWidget, until):
    session, loaded = shown.session, shown.session.checkpoint
    session.checkpoint = None
    click_canvas(shown, centre_of(shown))
    assert "being loaded" in shown.message_label.text() and session.spot is None
    session.set_checkpoint(loaded)
    until(lambda: session.spot is not None)
    assert is_framed(shown)

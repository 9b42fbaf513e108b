"""What the canvas and napari's list of layers show, by real mouse events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPoint, QSortFilterProxyModel, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QListView

from napari_dkan.samples import get_synthetic_section
from napari_dkan.viewer.layers.canvas_legend import GENE_LEGEND
from napari_dkan.viewer.layers.contrast_limits import get_label_range
from napari_dkan.viewer.session.viewer_settings import TargetMode, get_canvas_preference
from napari_dkan.viewer.tools.occlusion_tool import WHY_LEGEND

from .prediction_steps import finish

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

LEFT = Qt.MouseButton.LeftButton


def click_canvas(panel: PredictWidget, until, shift: int = 0) -> None:
    """Click beside the middle of the canvas and wait for the bars."""
    canvas = panel.session.viewer.window._qt_viewer.canvas.native
    place, before = QPoint(canvas.width() // 2 + shift, canvas.height() // 2), panel.session.spot
    QTest.mouseMove(canvas, place)
    QTest.mouseClick(canvas, LEFT, pos=place)
    until(lambda: panel.session.spot is not before and not panel.click_predictor.busy)


def predict_tissue(panel: PredictWidget, until):
    button = panel.target_box.mode_buttons[TargetMode.TISSUE]
    QTest.mouseClick(button, LEFT, pos=QPoint(8, button.height() // 2))
    until(lambda: panel.target_box.target is not None)
    QTest.mouseClick(panel.target_box.predict_button, LEFT)
    finish(panel, until)
    return panel.session.overlays[-1]


def listed(panel: PredictWidget) -> list[str]:
    """The rows of napari's list of layers that a person sees, from the bottom up."""
    layers = panel.session.viewer.layers
    (view,) = [
        v
        for v in panel.window().findChildren(QListView)
        if isinstance(v.model(), QSortFilterProxyModel) and v.model().rowCount() == len(layers)
    ]
    rows = [r for r in range(len(layers)) if not view.isRowHidden(r)]
    return [view.model().index(r, 0).data() for r in rows][::-1]


def edges(layer) -> np.ndarray:
    """The outer edges of an image; its extent is that of the centres of pixels."""
    return layer.extent.world + np.outer((-0.5, 0.5), layer.scale)


def offered_spots(panel: PredictWidget) -> list[str]:
    combo = panel.target_box.points_combo
    return [combo.itemText(i) for i in range(combo.count())]


def test_the_list_shows_what_a_person_uses_and_names_what_differs(shown: PredictWidget, until):
    session, viewer = shown.session, shown.session.viewer
    for shift in (0, 40, 80):
        click_canvas(shown, until, shift)
    gene = session.gene
    assert listed(shown) == ["drawn", f"{gene} predicted, clicked"] and len(viewer.layers) > 2
    assert offered_spots(shown) == []
    assert "smoothed" not in viewer.canvas.overlays[GENE_LEGEND].text  # of tiles, not of spots
    low, high = viewer.layers[f"{gene} predicted, clicked"].face_contrast_limits
    values = session.overlays[0].prediction.get_gene_values(gene)
    wanted = np.concatenate([values, get_label_range(session.checkpoint, gene)])
    np.testing.assert_allclose((low, high), (wanted.min(), wanted.max()), rtol=1e-5)
    assert high - low > 1.5 * np.ptp(values)  # three spots do not stretch the colours

    overlay = predict_tissue(shown, until)
    viewer.add_points(np.zeros((3, 2)), name="my spots")
    names = [f"{gene} predicted", f"{gene} predicted, clicked", "my spots"]
    assert listed(shown) == ["drawn", *names] and offered_spots(shown) == ["my spots"]
    values = overlay.prediction.get_gene_values(gene)
    np.testing.assert_allclose(
        overlay.layer.contrast_limits, np.nanpercentile(values, [2, 98]), rtol=1e-5
    )

    viewer.open(get_synthetic_section().image, plugin="napari-dkan")
    other = session.slide.layer
    names = [f"{gene} predicted - drawn", f"{gene} predicted, clicked - drawn", "my spots"]
    assert listed(shown) == ["drawn", *names, other.name]
    session.overlays[0].layer.name = "mine"
    session.step_gene(1)
    viewer.layers.remove(other)
    assert listed(shown) == ["drawn", f"{session.gene} predicted", "mine", "my spots"]

    # napari selects the neighbour of a deleted layer, which may be one that is not listed
    viewer.layers.selection = {overlay.layer}
    viewer.layers.remove_selected()
    viewer.layers.selection = {session.overlays[0].layer}
    viewer.layers.remove_selected()
    assert viewer.layers.selection.active.name in listed(shown)


def test_why_here_clears_the_view_and_smooth_maps_keep_their_values(shown: PredictWidget, until):
    session = shown.session
    overlay = predict_tissue(shown, until)
    layer, opacity = overlay.layer, overlay.layer.opacity
    legend = session.viewer.canvas.overlays[GENE_LEGEND]
    assert "smoothed" in legend.text and layer.data.size > layer.tiles.size
    assert len(legend.text.splitlines()) == 3  # as many as its box holds
    wide, font = session.viewer.canvas.size, legend.font_size
    session.viewer.canvas.size = (wide[0], 180)  # smaller, not cut
    assert legend.font_size < font and legend.text.strip() == session.gene
    session.viewer.canvas.size = wide
    assert legend.font_size == font and "smoothed" in legend.text
    row, column = np.argwhere(np.isfinite(layer.tiles))[0]
    position = layer.tile_translate + layer.tile_scale * (row - 0.3, column + 0.3)  # in the tile
    assert layer.get_value(position, world=True) == layer.tiles[row, column]
    assert overlay.value_at(tuple(position)) == layer.tiles[row, column]
    data, options, kind = layer.as_layer_data_tuple()
    assert kind == "image" and data is layer.tiles
    np.testing.assert_allclose(options["scale"], layer.tile_scale)

    click_canvas(shown, until)
    shown.occlusion_box.checkbox.click()
    until(lambda: shown.occlusion_box.explainer.explanation is not None)
    assert layer.opacity < 0.1 and layer.visible
    why = session.viewer.canvas.overlays[WHY_LEGEND]  # in place of what the map measures
    assert why.visible and "orange: lower" in why.text
    assert not legend.visible and not overlay.colorbar.visible
    before = session.spot
    click_canvas(shown, until, 60)  # a click on the map still shows its tile
    assert session.spot is not before and len(session.overlays) == 1
    until(lambda: not shown.occlusion_box.explainer.busy)
    shown.occlusion_box.checkbox.click()
    assert layer.opacity == opacity
    assert legend.visible and overlay.colorbar.visible and not why.visible

    smooth = edges(layer)
    shown.gene_box.smooth_checkbox.click()
    assert "smoothed" not in legend.text
    np.testing.assert_array_equal(layer.data, layer.tiles)
    np.testing.assert_allclose(edges(layer), smooth, atol=1e-6)
    np.testing.assert_allclose(layer.scale, layer.tile_scale)
    assert overlay.value_at(tuple(position)) == layer.tiles[row, column]


def test_overview_moves_the_view_and_what_is_closed_stays_closed(shown: PredictWidget, until):
    viewer, inset = shown.session.viewer, shown.overview.inset
    until(lambda: inset.has_picture)
    assert inset.isVisible() and viewer.canvas.overlays.scale_bar.visible
    slide = shown.session.slide
    place = QPoint(inset.width() // 4, inset.height() // 4)
    QTest.mouseClick(inset, LEFT, pos=place)
    QApplication.processEvents()
    y, x = viewer.scene.camera.center[-2:]
    width, height = slide.slide.width * slide.mpp, slide.slide.height * slide.mpp
    np.testing.assert_allclose((x / width, y / height), 0.25, atol=0.02)
    assert shown.session.spot is None  # it is no click on the slide
    viewer.scene.camera.zoom *= 4
    frame = inset._frame
    np.testing.assert_allclose(frame.mean(axis=0), (x / width, y / height), atol=0.01)

    QTest.mouseClick(inset.button, LEFT)
    assert not inset.expanded and inset.isVisible() and inset.width() < 30
    viewer.canvas.overlays.scale_bar.visible = False
    assert not get_canvas_preference("overview") and not get_canvas_preference("scale_bar")
    QTest.mouseClick(inset.button, LEFT)
    assert inset.expanded and get_canvas_preference("overview")
    viewer.canvas.size = (600, 300)  # a narrow one leaves the upper corners to the legend
    assert inset.y() + inset.height() > 550
    viewer.canvas.size = (600, 180)
    assert not inset.isVisible()
    viewer.canvas.size = (600, 800)
    until(inset.isVisible)
    assert inset.y() < 50
    viewer.canvas.grid.enabled = True  # maps side by side need the room
    assert not inset.isVisible()
    viewer.canvas.grid.enabled = False
    until(inset.isVisible)
    viewer.layers.clear()
    assert not inset.isVisible()

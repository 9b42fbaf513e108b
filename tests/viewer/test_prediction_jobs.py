"""Click, region, gene and cancel in a real viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.layers.canvas_legend import GENE_LEGEND
from napari_dkan.viewer.layers.prediction_layers import GridOverlay, SpotsOverlay
from napari_dkan.viewer.session.viewer_settings import ContrastLimits, TargetMode

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def test_click_on_tissue_shows_gene_bars(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until, qtbot
):
    panel = make_panel(show=True)
    viewer, session = panel.session.viewer, panel.session
    viewer.open(tiny_slide_file, plugin="napari-dkan")
    viewer.reset_view()
    until(lambda: session.slide.tissue is not None)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.wait(200)
    place = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mouseMove(canvas, place)
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=place)
    until(lambda: session.spot is not None)
    x, y = session.spot.target.spots.xy[0]
    slide = session.slide.slide
    assert abs(x - slide.width / 2) < 60 and abs(y - slide.height / 2) < 60
    rows = panel.spot_box.gene_bars.rows
    assert rows[0][0] == session.gene and rows[0][2]
    assert {g for g, _, _ in rows} == set(session.checkpoint.panel.symbols)
    assert all(np.isfinite(v) for _, v, _ in rows)
    assert panel.spot_box.gene_bars.isVisible()
    assert "log10(1 + counts per 10k of panel)" in panel.spot_box.gene_bars.toolTip()


def test_drag_pans_and_predicts_nothing(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until, qtbot
):
    panel = make_panel(show=True)
    panel.session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    until(lambda: panel.session.slide.tissue is not None)
    canvas = panel.session.viewer.window._qt_viewer.canvas.native
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=QPoint(200, 200))
    for step in range(5):
        qtbot.mouseMove(canvas, QPoint(200 + 10 * step, 200))
        QApplication.processEvents()
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=QPoint(250, 200))
    qtbot.wait(100)
    assert not panel.click_predictor.busy and panel.session.spot is None


def test_of_rapid_clicks_the_last_one_is_predicted(panel: PredictWidget, middle, until):
    x, y = middle
    spots = []
    panel.session.spot_changed.connect(lambda: spots.append(panel.session.spot))
    for i in range(10):
        panel.click_predictor.predict_at(x + i, y)
    until(lambda: not panel.click_predictor.busy)
    assert len(spots) == 2  # the first, which was running, and the last
    assert spots[-1].target.spots.xy[0, 0] == x + 9


def test_clicked_spots_are_in_one_layer(panel: PredictWidget, middle, until):
    x, y = middle
    for i in range(3):
        panel.click_predictor.predict_at(x + 30 * i, y)
        until(lambda: not panel.click_predictor.busy)
    (overlay,) = panel.session.overlays
    assert isinstance(overlay, SpotsOverlay) and len(overlay.layer.data) == 3
    np.testing.assert_allclose(overlay.layer.scale, 0.7)
    assert "predicted" in overlay.layer.name and panel.session.gene in overlay.layer.name


def test_region_is_filled_with_a_heatmap(panel: PredictWidget, middle, until, monkeypatch):
    x, y = middle
    draw(panel, square(x, y, 400), square(x, y, 150))  # the inner one is a hole
    plan = panel.target_box.plan_label.text()
    assert panel.target_box.plan_label.toolTip() == "Tiles of 112 um, every 140 um."
    assert "\u00a0s on the CPU" in plan  # its time
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    predictor.batch_sizes.limit(2)
    predictor.clear_cache()
    monkeypatch.setattr("napari_dkan.viewer.widgets.paced_progress_bar.PROGRESS_SECONDS", 1e9)
    filled, shown = [], []
    panel.prediction_jobs.changed.connect(lambda: filled.append(panel.prediction_jobs.progress))
    panel.target_box.progress_bar.valueChanged.connect(shown.append)
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = panel.session.overlays
    layer = overlay.layer
    assert isinstance(overlay, GridOverlay)
    assert layer.name == f"{panel.session.gene} predicted"
    np.testing.assert_allclose(layer.tile_scale, 140)
    assert [str(u) for u in layer.units] == ["micrometer", "micrometer"]
    count = int(np.isfinite(layer.tiles).sum())
    assert plan.startswith(f"{count} tiles") and 0 < count < layer.tiles.size  # the hole is empty
    assert overlay.value_at((y * 0.7, x * 0.7)) is None
    steps = [p.done for p in filled if p is not None and p.stage == "spots"]
    assert len(steps) > 3 and steps == sorted(steps)  # it came batch by batch
    # Each number composes the window: the first of a stage, and the last, but not all between.
    assert shown[-1] == count and len({v for v in shown if v in steps[1:-1]}) == 0
    legend = panel.session.viewer.canvas.overlays[GENE_LEGEND]
    assert legend.visible and "predicted expression" in legend.text and "log10" not in legend.text
    assert f"{count} tiles predicted" in panel.message_label.text()


def test_map_is_aligned_with_the_tissue(panel: PredictWidget, until):
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = panel.session.overlays
    spots = overlay.prediction.target.spots
    for row in (0, len(spots) // 2, len(spots) - 1):
        x, y = spots.xy[row]
        wanted = overlay.prediction.get_gene_values(panel.session.gene)[row]
        assert overlay.value_at((y * 0.7, x * 0.7)) == np.float32(wanted)


def test_visible_tiles_are_predicted_first(panel: PredictWidget, until):
    draw(panel, everything(panel))
    viewer = panel.session.viewer
    corner = panel.session.slide.tissue.bounds[2] * 0.7 - 100
    viewer.scene.camera.center = (0, 560, corner)
    viewer.scene.camera.zoom = 4
    rows = []
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    predictor.batch_sizes.limit(2)
    predictor.clear_cache()
    stream = predictor.stream

    def spy(target, *asked):
        for update in stream(target, *asked):
            rows.extend(target.spots.xy[update.rows] * 0.7)
            yield update

    predictor.stream = spy
    panel.target_box.start_prediction()
    finish(panel, until)
    distance = np.hypot(*(np.array(rows) - [corner, 560]).T)
    assert distance[:5].max() < np.median(distance)


def test_arrow_keys_on_the_canvas_step_through_genes(panel: PredictWidget, middle, until, qtbot):
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    canvas = panel.session.viewer.window._qt_viewer.canvas.native
    symbols = panel.session.checkpoint.panel.symbols
    (overlay,) = panel.session.overlays
    start = symbols.index(panel.session.gene)
    for key, step in ((Qt.Key.Key_Right, 1), (Qt.Key.Key_Down, 2), (Qt.Key.Key_Left, 1)):
        qtbot.keyClick(canvas, key)
        gene = symbols[(start + step) % len(symbols)]
        assert panel.session.gene == gene
        assert gene in overlay.layer.name and overlay.layer.features["gene"].iloc[0] == gene
        assert (
            overlay.layer.features["value"].iloc[0] == overlay.prediction.get_gene_values(gene)[0]
        )
        assert panel.gene_box.search_field.text() == gene


def test_genes_are_found_by_alias_and_part_of_the_name(panel: PredictWidget, qtbot):
    box = panel.gene_box
    for typed, found in (("HER2", "ERBB2"), ("keratin", "KRT8"), ("cd74", "CD74")):
        box.search_field.clear()
        qtbot.keyClicks(box.search_field, typed)
        qtbot.keyClick(box.search_field, Qt.Key.Key_Return)
        assert panel.session.gene == found
    box.search_field.clear()
    qtbot.keyClicks(box.search_field, "XYZZY")
    qtbot.keyClick(box.search_field, Qt.Key.Key_Return)
    assert (
        panel.session.gene == "CD74"
        and "XYZZY is not among the 6 genes" in panel.message_label.text()
    )


def test_limits_are_percentiles_or_fixed_and_shared(panel: PredictWidget, until):
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    layer = panel.session.overlays[0].layer
    values = layer.tiles[np.isfinite(layer.tiles)]
    np.testing.assert_allclose(layer.contrast_limits, np.percentile(values, [2, 98]), rtol=1e-5)
    panel.session.change_settings(contrast_limits=ContrastLimits((0.5, 2.5)))
    panel.session.step_gene(1)
    np.testing.assert_allclose(layer.contrast_limits, (0.5, 2.5))
    panel.session.change_settings(colormap="viridis")
    assert layer.colormap.name == "viridis"


def test_cancel_is_fast_and_keeps_finished_tiles_only(panel: PredictWidget, until, qtbot):
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    predictor.batch_sizes.limit(1)
    predictor.clear_cache()
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    until(
        lambda: (
            panel.prediction_jobs.progress is not None
            and panel.prediction_jobs.progress.stage == "spots"
        )
    )
    panel.target_box.cancel_button.click()
    assert not panel.prediction_jobs.busy  # at once, whatever the thread is in the middle of
    kept = int(panel.session.overlays[0].prediction.predicted_mask.sum())
    total = len(panel.session.overlays[0].prediction.predicted_mask)
    assert 0 < kept < total and f"{kept} finished tiles are kept" in panel.message_label.text()
    assert panel.prediction_jobs._runner.wait()
    qtbot.wait(200)
    assert int(panel.session.overlays[0].prediction.predicted_mask.sum()) == kept
    assert int(np.isfinite(panel.session.overlays[0].layer.tiles).sum()) == kept


def test_points_layer_is_predicted_spot_by_spot(panel: PredictWidget, middle, until):
    x, y = middle
    spots = swap_xy([(x, y), (x + 100, y), (x, y + 100)])
    panel.session.viewer.add_points(spots, scale=(0.7, 0.7), units="um", name="my spots")
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert panel.target_box.plan_label.text().startswith("3 spots")
    panel.target_box.start_prediction()
    finish(panel, until)
    overlay = panel.session.overlays[0]
    np.testing.assert_allclose(overlay.layer.data, spots)
    assert np.isfinite(overlay.prediction.values).all()


def test_tissue_outline_can_be_edited(panel: PredictWidget):
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    panel.target_box.update_plan()
    before = int(panel.target_box.plan_label.text().split()[0])
    panel.target_box.edit_button.click()
    layer = panel.session.viewer.layers.selection.active
    assert layer.name.startswith("tissue") and len(layer.data) >= 1
    layer.data = [swap_xy(np.array(square(800, 800, 250), float))]
    panel.target_box.update_plan()
    after = int(panel.target_box.plan_label.text().split()[0])
    assert 0 < after < before

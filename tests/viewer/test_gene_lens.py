"""The gene lens: it follows the cursor and predicts missing tiles."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QToolTip

from napari_dkan.errors import SlideError
from napari_dkan.inference.target import TargetKind
from napari_dkan.viewer.layers.canvas_legend import GENE_LEGEND
from napari_dkan.viewer.session.shortcut_actions import ACTION_BY_NAME
from napari_dkan.viewer.session.viewer_settings import ContrastLimits, TargetMode
from napari_dkan.viewer.tools import lens_job
from napari_dkan.viewer.tools.lens_grid import LensCircle

from .prediction_steps import draw, everything, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.tools.gene_lens import GeneLens


@pytest.fixture
def predictor(panel: PredictWidget, until):
    """With small batches, and nothing known."""
    made = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    until(lambda: not panel.prefetcher.busy)
    made.batch_sizes.limit(2)
    made.clear_cache()
    return made


@pytest.fixture
def lens(panel: PredictWidget, predictor: Predictor, middle, until):
    """Switched on in the middle, and at rest."""
    panel.lens.resize(300)
    panel.lens.set_active(True)
    panel.lens.move(*middle)
    until(lambda: not panel.lens.busy)
    return panel.lens


def count_streamed(predictor: Predictor, monkeypatch) -> list[int]:
    """Every tile that is predicted from now on, batch by batch."""
    stream, counts = predictor.stream, []

    def counted(target, *args, **kwargs):
        for update in stream(target, *args, **kwargs):
            if target.kind is TargetKind.GRID and update.stage == "spots":
                counts.append(len(update.rows))
            yield update

    monkeypatch.setattr(predictor, "stream", counted)
    return counts


def visible_values(lens: GeneLens) -> np.ndarray:
    """Finite px of what is drawn."""
    data = lens.layers.raster_layer.data
    return data[np.isfinite(data)]


def values_at(lens: GeneLens, xy: np.ndarray) -> np.ndarray:
    """What is drawn at places (N, 2) in level-0 px; NaN off the raster."""
    layer, mpp = lens.layers.raster_layer, lens.session.slide.mpp
    places = np.array([layer.world_to_data(p[::-1] * mpp) for p in xy])
    rows = np.rint(places).astype(int).reshape(-1, 2)
    inside = ((rows >= 0) & (rows < layer.data.shape)).all(axis=1)
    row, column = rows.clip(0, np.array(layer.data.shape) - 1).T
    return np.where(inside, layer.data[row, column], np.nan)


def test_lens_shows_the_values_of_a_hidden_map_and_leaves_a_visible_one(
    panel: PredictWidget, lens: GeneLens, middle, until
):
    x, y = middle
    assert len(visible_values(lens))
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    until(lambda: not lens.busy)
    lens.move(x, y)
    assert not len(visible_values(lens))  # the map draws them
    panel.session.overlays[-1].layer.visible = False
    prediction = panel.session.overlays[-1].prediction
    centres, values = prediction.target.spots.xy, prediction.get_gene_values(panel.session.gene)
    for place in [(x, y), (x + 260, y), (x, y - 330), (x - 500, y + 90), (0, 0)]:
        lens.move(*place)
        away = np.hypot(*(centres - place).T)
        under, beside = away < 300 / 0.7 - 20, away > 300 / 0.7 + 20  # less, more a raster px
        np.testing.assert_allclose(values_at(lens, centres[under]), values[under], atol=1e-5)
        assert np.isnan(values_at(lens, centres[beside])).all()
        ring = lens.layers.ring_layer
        np.testing.assert_allclose(ring.data[0][::-1], place)
        np.testing.assert_allclose(ring.size[0], 2 * 300 / 0.7)


def test_missing_tiles_are_predicted_and_cached_for_maps(
    panel: PredictWidget, lens: GeneLens, predictor: Predictor, monkeypatch
):
    field, sheet = lens.grid, lens.raster
    circle = LensCircle(lens.job.circle.x, lens.job.circle.y, 300 / 0.7)
    assert not len(field.cells_to_predict(sheet, circle)) and len(visible_values(lens))
    under = circle.overlapping_cells(field.pitch, field.shape)
    tissue = field.tissue_mask[under[:, 1], under[:, 0]]
    rows, _ = predictor.get_cached_tokens(field.make_target(under[tissue]))
    assert len(rows) == tissue.sum() == sheet.attempted.sum()
    assert np.isnan(sheet.values[~field.tissue_mask]).all()


def test_fast_moves_start_one_job_at_the_last_position(
    panel: PredictWidget, predictor: Predictor, middle, until, monkeypatch
):
    lens, session = panel.lens, panel.session
    lens.resize(200)
    lens.set_active(True)
    until(lambda: lens.raster is not None and not lens.busy)
    predictor.clear_cache()
    lens.grid = None
    lens.set_active(False)
    counts, starts = count_streamed(predictor, monkeypatch), []
    start = lens.job.runner.start
    monkeypatch.setattr(lens.job.runner, "start", lambda *a: (starts.append(1), start(*a)))
    lens.set_active(True)
    x, y = middle
    for i in range(50):
        lens.move(x - 600 + 12 * i, y)
    until(lambda: not lens.busy)
    last = lens.job.circle
    field, sheet = lens.grid, lens.raster
    under = last.overlapping_cells(field.pitch, field.shape)
    assert 0 < sum(counts) == field.tissue_mask[under[:, 1], under[:, 0]].sum()
    assert len(starts) == 1
    tried = np.argwhere(sheet.attempted)[:, ::-1]
    assert {tuple(c) for c in tried.tolist()} <= {tuple(c) for c in under.tolist()}
    assert session.message.text == "" or not session.message.is_warning


def test_job_follows_the_lens(
    panel: PredictWidget, predictor: Predictor, middle, until, monkeypatch
):
    lens, slide = panel.lens, panel.session.slide.slide
    predictor.batch_sizes.limit(1)
    counts = count_streamed(predictor, monkeypatch)
    lens.resize(300)
    lens.set_active(True)
    lens.move(slide.width * 0.3, slide.height * 0.5)
    until(lambda: len(counts) >= 2)
    first = lens.raster
    lens.move(slide.width * 0.75, slide.height * 0.5)
    until(lambda: not lens.busy)
    field, sheet = lens.grid, lens.raster
    assert sheet is first
    assert not len(field.cells_to_predict(sheet, lens.job.circle))  # the new place is filled
    assert len(
        field.cells_to_predict(sheet, LensCircle(slide.width * 0.3, slide.height * 0.5, 300 / 0.7))
    )


def test_gene_change_over_cached_tiles_reads_no_pixels(
    panel: PredictWidget, lens: GeneLens, predictor: Predictor, until, monkeypatch
):
    """They are decoded and drawn a few at a time, the nearest first."""
    monkeypatch.setattr(lens_job, "DECODE_TILES", 4)
    monkeypatch.setattr(lens_job, "DRAW_SECONDS", -1.0)
    decode, pieces = predictor.decode, []
    monkeypatch.setattr(
        predictor, "decode", lambda tokens, *a: (pieces.append(len(tokens)), decode(tokens, *a))[1]
    )

    def unread(*args):
        raise AssertionError("the slide was read for a gene")

    before, gene = visible_values(lens).copy(), panel.session.gene
    monkeypatch.setattr(panel.session.slide.slide, "read_patch", unread)
    panel.session.step_gene(1)
    until(lambda: not lens.busy)
    assert len(visible_values(lens)) == len(before) and not np.allclose(
        visible_values(lens), before
    )
    assert lens.layers.raster_layer.name == f"{panel.session.gene} predicted - lens"
    cells = np.argwhere(np.isfinite(lens.raster.values))[:, ::-1]
    assert len(pieces) > 1 and max(pieces) == 4 and sum(pieces) == len(cells)
    rows, tokens = predictor.get_cached_tokens(lens.grid.make_target(cells))
    wanted = decode(tokens, [panel.session.checkpoint.panel.row(panel.session.gene)])[:, 0]
    column, row = cells[rows].T
    np.testing.assert_allclose(lens.raster.values[row, column], wanted, atol=1e-5)
    panel.session.set_gene(gene)  # at once: the values are cached
    np.testing.assert_array_equal(visible_values(lens), before)


def test_limits_and_colors_follow_the_session(panel: PredictWidget, lens: GeneLens, until):
    layer, session = lens.layers.raster_layer, panel.session
    assert layer.contrast_limits[0] < layer.contrast_limits[1]
    assert visible_values(lens).min() < layer.contrast_limits[1]
    assert session.viewer.canvas.overlays[GENE_LEGEND].visible
    assert session.gene in session.viewer.canvas.overlays[GENE_LEGEND].text
    session.change_settings(
        contrast_limits=ContrastLimits((0.25, 0.75)), colormap="viridis", opacity=0.4
    )
    assert tuple(layer.contrast_limits) == (0.25, 0.75)
    assert layer.colormap.name == "viridis" and layer.opacity == 0.4
    session.change_settings(contrast_limits=ContrastLimits())
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    assert len(session.overlays[-1].prediction.target) >= 20
    assert tuple(layer.contrast_limits) == panel.display.contrast_limits()
    order = list(session.viewer.layers)
    assert order.index(layer) > order.index(session.overlays[-1].layer)


def test_lens_predicts_nothing_while_a_map_runs(
    panel: PredictWidget, predictor: Predictor, middle, until, monkeypatch
):
    lens = panel.lens
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    assert panel.prediction_jobs.busy
    predicted = []
    fill = lens.job.predict_cells
    monkeypatch.setattr(lens.job, "predict_cells", lambda *a: (predicted.append(1), fill(*a))[1])
    lens.resize(300)
    lens.set_active(True)
    lens.move(*middle)
    finish(panel, until)
    until(lambda: not lens.busy)
    assert not predicted  # the map has predicted it all
    panel.session.overlays[-1].layer.visible = False
    lens.move(*middle)
    assert len(visible_values(lens)) and not len(
        lens.grid.cells_to_predict(lens.raster, lens.job.circle)
    )


def test_switching_off_removes_the_layers_and_keeps_the_selection(
    panel: PredictWidget, lens: GeneLens, middle
):
    viewer = panel.session.viewer
    mine = (lens.layers.raster_layer, lens.layers.ring_layer)
    assert all(layer in viewer.layers for layer in mine)
    for layer in mine:
        assert "predicted" in layer.name and panel.session.gene in layer.name
        assert tuple(str(u) for u in layer.units) == ("micrometer", "micrometer")
        assert layer.axis_labels == ("y", "x")
    assert viewer.layers.selection.active is panel.session.slide.layer
    assert panel.target_box.points_combo.count() == 0  # the ring is no spots layer
    lens.set_active(False)
    assert not any(layer in viewer.layers for layer in mine)
    assert not viewer.canvas.overlays[GENE_LEGEND].visible
    lens.set_active(True)
    lens.move(*middle)
    viewer.layers.remove(lens.layers.raster_layer)
    assert not lens.active and not panel.lens_box.toggle_button.isChecked()
    assert not [layer for layer in viewer.layers if "lens" in layer.name]
    lens.set_active(True)
    viewer.layers.remove(panel.session.slide.layer)
    assert not [layer for layer in viewer.layers if "lens" in layer.name]


def test_lens_continues_after_an_error(
    panel: PredictWidget, predictor: Predictor, middle, until, monkeypatch
):
    lens = panel.lens

    def gone(*args):
        raise SlideError("The slide is gone; put it back.")

    monkeypatch.setattr(panel.session.slide.slide, "read_patch", gone)
    lens.resize(300)
    lens.set_active(True)
    lens.move(*middle)
    until(lambda: not lens.busy)
    assert "The slide is gone" in panel.message_label.text() and panel.session.message.is_warning
    monkeypatch.undo()
    lens.move(middle[0] + 1, middle[1])
    until(lambda: not lens.busy)
    assert len(visible_values(lens))


def test_message_without_a_slide(make_panel: Callable[..., PredictWidget]):
    panel = make_panel()
    panel.lens_box.toggle_button.click()
    assert not panel.lens.active and not panel.lens_box.toggle_button.isChecked()
    assert "Open a slide first" in panel.message_label.text()


def test_cursor_shortcut_and_wheel(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until, qtbot
):
    panel = make_panel(show=True)
    viewer, session, lens = panel.session.viewer, panel.session, panel.lens
    viewer.open(tiny_slide_file, plugin="napari-dkan")
    viewer.reset_view()
    until(lambda: session.slide.tissue is not None and not panel.prefetcher.busy)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.wait(200)
    place = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.keyClick(canvas, ACTION_BY_NAME["lens"].default_key)
    assert lens.active and panel.lens_box.toggle_button.isChecked()
    qtbot.mouseMove(canvas, place + QPoint(40, 0))
    qtbot.mouseMove(canvas, place)
    slide = session.slide.slide
    until(lambda: abs(lens.job.circle.x - slide.width / 2) < 60)
    until(lambda: not lens.busy)
    qtbot.mouseMove(canvas, place + QPoint(1, 0))
    until(lambda: QToolTip.text().startswith(f"{session.gene} predicted "))
    zoom, radius = viewer.scene.camera.zoom, lens.radius_um
    vispy = viewer.window._qt_viewer.canvas._scene_canvas.events.mouse_wheel
    vispy(delta=(0, 1), pos=(place.x(), place.y()), modifiers=("Shift",), native=None)
    assert lens.radius_um > radius and viewer.scene.camera.zoom == zoom
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=place)  # still predicts the spot
    until(lambda: session.spot is not None)
    qtbot.keyClick(canvas, ACTION_BY_NAME["lens"].default_key)
    assert not lens.active
    session.change_settings(target_mode=TargetMode.CLICK)


def test_closing_the_panel_leaves_no_callbacks(panel: PredictWidget, lens: GeneLens, until):
    viewer = panel.session.viewer
    known = weakref.ref(lens.raster)
    lens.move(lens.job.circle.x + 200, lens.job.circle.y)
    panel.shut_down()
    assert not lens.active and not lens.busy
    for callbacks in (viewer.mouse_move_callbacks, viewer.mouse_wheel_callbacks):
        assert not [f for f in callbacks if getattr(f, "__self__", None) is lens]
    assert not [f for f in viewer.keymap.values() if getattr(f, "__self__", None) is lens]
    assert not [layer for layer in viewer.layers if "lens" in layer.name]
    gc.collect()
    QApplication.processEvents()
    assert known() is None
    panel.session.step_gene(1)
    panel.session.change_settings(dense_grid=True)
    assert not lens.busy

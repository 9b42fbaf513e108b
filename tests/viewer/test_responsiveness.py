"""The order of work: shown gene, visible tiles, rough map, prefetching."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from qtpy.QtCore import QEvent, QThreadPool
from qtpy.QtWidgets import QApplication

from napari_dkan.errors import DamagedTileError
from napari_dkan.inference import target as rough
from napari_dkan.viewer.jobs.job_progress import JobTimer
from napari_dkan.viewer.jobs.viewport import Viewport
from napari_dkan.viewer.session.viewer_settings import TargetMode
from napari_dkan.viewer.widgets.signal_connections import SignalConnections

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from napari_dkan.inference.predictor import Predictor
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


@pytest.fixture
def predictor(panel: PredictWidget):
    return panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)


def whole_tissue(panel: PredictWidget, until):
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    panel.target_box.update_plan()
    panel.target_box.start_prediction()
    finish(panel, until)
    return panel.session.overlays[-1]


def test_shown_gene_is_decoded_first_without_reading_pixels(
    panel: PredictWidget, predictor: Predictor, until, monkeypatch
):
    predictor.clear_cache()
    first = []
    panel.session.overlay_updated.connect(
        lambda overlay: first.append(np.isfinite(overlay.prediction.values).sum(axis=0))
    )
    overlay = whole_tissue(panel, until)
    column = overlay.prediction.panel.row(panel.session.gene)
    others = np.delete(first[0], column)
    assert first[0][column] > 0 and not others.any()
    assert np.isfinite(overlay.prediction.values[overlay.prediction.predicted_mask]).all()  # by now

    def unread(*args):
        raise AssertionError("the slide was read for a gene")

    monkeypatch.setattr(panel.session.slide.slide, "read_patch", unread)
    overlay.prediction.values[:] = np.nan
    panel.session.overlays_changed.emit()
    panel.session.step_gene(1)
    finish(panel, until)
    shown = overlay.layer.tiles[np.isfinite(overlay.layer.tiles)]
    assert len(shown) == overlay.prediction.predicted_mask.sum()
    whole = predictor.decode(overlay.prediction.tokens)
    np.testing.assert_allclose(overlay.prediction.values, whole, atol=1e-5)


def test_second_map_of_the_same_tiles_reads_no_pixels(
    panel: PredictWidget, predictor: Predictor, until, monkeypatch
):
    before = whole_tissue(panel, until).prediction.values.copy()

    def unread(*args):
        raise AssertionError("a known tile was read again")

    monkeypatch.setattr(panel.session.slide.slide, "read_patch", unread)
    np.testing.assert_allclose(whole_tissue(panel, until).prediction.values, before, atol=1e-6)


def test_prediction_order_follows_the_camera(panel: PredictWidget, predictor: Predictor, until):
    predictor.batch_sizes.limit(1)
    predictor.clear_cache()
    draw(panel, everything(panel))
    camera = panel.session.viewer.scene.camera
    camera.zoom = 4
    camera.center = (0, 200, 200)
    viewport = Viewport(panel.session, SignalConnections())
    order = viewport.make_order(panel.session.slide)
    target = panel.target_box.target
    xy = target.spots.xy
    rows, moved = [], False
    for update in predictor.stream(target, order, []):
        rows.extend(update.rows.tolist())
        if len(rows) == 3 and not moved:
            camera.center = (0, 900, 900)
            moved = True
    assert sorted(rows) == list(range(len(target)))
    near_first = np.hypot(*(xy[rows[:3]] * 0.7 - 200).T).mean()
    near_second = np.hypot(*(xy[rows[4:7]] * 0.7 - 900).T).mean()
    far = np.hypot(*(xy * 0.7 - 900).T).mean()
    assert near_first < far and near_second < far


def test_rough_map_is_drawn_before_the_exact_one(
    panel: PredictWidget, predictor: Predictor, until, monkeypatch
):
    monkeypatch.setattr(rough, "MAX_COARSE_TILES", 6)
    monkeypatch.setattr(rough, "MIN_COARSE_RATIO", 2)
    predictor.batch_sizes.limit(2)
    predictor.clear_cache()
    shown, exact = [], []
    panel.session.overlay_updated.connect(
        lambda o: (
            shown.append(np.isfinite(o.layer.tiles).sum()),
            exact.append(o.prediction.predicted_mask.sum()),
        )
    )
    overlay = whole_tissue(panel, until)
    assert any(s > 2 * e for s, e in zip(shown, exact, strict=True))  # rough ones were drawn
    assert overlay.rough is None and overlay.prediction.predicted_mask.all()
    predictor.clear_cache()
    again = [u for u in predictor.stream(overlay.prediction.target) if len(u.rows)]
    values = np.full_like(overlay.prediction.values, np.nan)
    for update in again:
        values[update.rows] = update.values
    np.testing.assert_allclose(overlay.prediction.values, values, atol=1e-5)


def test_drawing_takes_a_tenth_of_the_time_of_a_job(monkeypatch):
    now = 100.0
    monkeypatch.setattr("napari_dkan.viewer.jobs.job_progress.time.perf_counter", lambda: now)
    timer, cost, starts = JobTimer(), 0.3, []
    while now < 120:
        if timer.is_redraw_due():
            start = now
            starts.append(start)
            now += cost
            timer.end_redraw(start)
        now += 0.01
    assert starts[0] == 100.0  # the first tiles at once
    np.testing.assert_allclose(np.diff(starts), cost / 0.1, atol=0.02)
    cost, starts = 0.001, []  # a fast one is not repeated without end
    timer = JobTimer()
    for _ in range(300):
        now += 0.01
        if timer.is_redraw_due():
            starts.append(now)
            timer.end_redraw(now)
    np.testing.assert_allclose(np.diff(starts), 0.6, atol=0.02)


def test_damaged_tiles_are_counted_and_can_be_retried(
    panel: PredictWidget, predictor: Predictor, middle, until, monkeypatch
):
    slide = panel.session.slide.slide
    read, (x, y) = slide.read_patch, middle

    def damaged(cx, cy, *rest):
        if abs(cx - x) < 60 and abs(cy - y) < 60:
            raise DamagedTileError("nothing can be read there")
        return read(cx, cy, *rest)

    predictor.clear_cache()
    monkeypatch.setattr(slide, "read_patch", damaged)
    draw(panel, square(*middle, 400))
    panel.target_box.start_prediction()
    finish(panel, until)
    (overlay,) = panel.session.overlays
    failed = panel.prediction_jobs.failed_count
    assert 0 < failed < len(overlay.prediction.predicted_mask)
    assert np.isnan(overlay.prediction.values[overlay.prediction.failed_mask]).all()
    assert f"{failed} could not be read" in panel.message_label.text()
    assert panel.target_box.retry_button.text() == f"Try {failed} failed tiles again"
    assert not panel.target_box.retry_button.isHidden()

    monkeypatch.undo()
    panel.target_box.retry_button.click()
    finish(panel, until)
    assert panel.prediction_jobs.failed_count == 0 and panel.target_box.retry_button.isHidden()
    assert overlay.prediction.predicted_mask.all() and np.isfinite(overlay.prediction.values).all()
    assert panel.session.overlays == [overlay]


def test_unwritable_cache_is_reported_once(panel: PredictWidget, until, monkeypatch, tmp_path):
    file = tmp_path / "no folder"
    file.write_text("")
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(file))
    panel.session.change_settings(store_tiles=True)
    until(lambda: not panel.prefetcher.busy)
    overlay = whole_tissue(panel, until)
    assert overlay.prediction.predicted_mask.all()
    assert (
        "cannot be written" in panel.message_label.text()
        and "tiles predicted" in panel.message_label.text()
    )
    whole_tissue(panel, until)
    assert "cannot be written" not in panel.message_label.text()


def test_a_hundred_cancels_leak_no_threads_and_no_memory(
    panel: PredictWidget, predictor: Predictor, until
):
    draw(panel, everything(panel))
    until(lambda: panel.target_box.target is not None)

    def cycle():
        panel.target_box.start_prediction()
        assert panel.prediction_jobs.busy
        panel.target_box.cancel_button.click()
        # What Qt deletes later, such as the controls of the layer, is deleted by the event loop.
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def run_cycles(count: int) -> int:
        """Bytes by which the process has grown."""
        before = psutil.Process().memory_info().rss
        for _ in range(count):
            cycle()
        assert panel.prediction_jobs._runner.wait()
        return psutil.Process().memory_info().rss - before

    run_cycles(10)
    before = threading.active_count()
    growth = [run_cycles(30) for _ in range(3)]
    # A busy machine may have started as many of Qt's threads as its pool holds, which Python goes
    # on counting; a thread that each cycle left behind would be far more.
    pool = QThreadPool.globalInstance().maxThreadCount()
    until(lambda: threading.active_count() <= before + pool)
    assert not [t for t in threading.enumerate() if t.name.startswith("dkan-read")]
    # The allocator may take memory from the system in any one round; a leak grows in every one.
    assert min(growth) < 10 * 2**20, growth
    finish(panel, until)
    assert len(panel.session.viewer.layers) < 8  # no empty maps stay


def test_nothing_is_prefetched_on_battery_or_when_switched_off(
    panel: PredictWidget, predictor: Predictor, monkeypatch, until
):
    panel.session.change_settings(prefetch=False)
    until(lambda: not panel.prefetcher.busy)
    predictor.clear_cache()
    panel.prefetcher.restart()
    until(lambda: not panel.prefetcher.busy)
    assert len(predictor.feature_cache.array) == 0
    monkeypatch.setattr("napari_dkan.viewer.jobs.prefetcher.is_on_battery", lambda: True)
    panel.session.change_settings(prefetch=True)
    until(lambda: not panel.prefetcher.busy)
    assert len(predictor.feature_cache.array) == 0
    monkeypatch.setattr("napari_dkan.viewer.jobs.prefetcher.is_on_battery", lambda: False)
    panel.prefetcher.restart()
    until(lambda: not panel.prefetcher.busy)
    assert len(predictor.feature_cache.array) > 0


def test_timing_report_can_be_copied(panel: PredictWidget, middle, until):
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    text = panel.timing_box.report_text()
    for stage in ("read", "encode", "fuse", "decode", "draw"):
        assert stage in text
    panel.timing_box.copy_button.click()
    panel.timing_box.reset_button.click()
    assert "encode" not in panel.timing_box.report_text()

"""Layers, slides, panels and windows that are closed, replaced or opened twice."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch
from shapely.geometry import Polygon

from napari_dkan.inference.target import target_from_region
from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
from napari_dkan.viewer.session.viewer_session import get_session
from napari_dkan.viewer.session.viewer_settings import TargetMode

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable


def start_map(panel: PredictWidget, until):
    """A map job over the whole slide whose first tiles are there, and many are not."""
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)
    predictor.batch_sizes.limit(1)
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    until(
        lambda: (
            panel.prediction_jobs.progress is not None
            and panel.prediction_jobs.progress.stage == "spots"
        )
    )


def has_no_threads(panel: PredictWidget):
    assert panel.prediction_jobs.wait()
    return not [t for t in threading.enumerate() if t.name.startswith("dkan-read")]


def test_removing_the_map_layer_cancels_its_job(panel: PredictWidget, until):
    start_map(panel, until)
    panel.session.viewer.layers.remove(panel.session.overlays[0].layer)
    assert not panel.prediction_jobs.busy and not panel.session.overlays
    until(lambda: has_no_threads(panel))
    panel.target_box.start_prediction()  # and the next one runs
    finish(panel, until)
    assert panel.session.overlays[0].prediction.predicted_mask.all()


def test_removing_the_slide_cancels_the_job_and_keeps_the_map(panel: PredictWidget, until):
    start_map(panel, until)
    layer = panel.session.slide.layer
    panel.session.viewer.layers.remove(layer)
    assert not panel.prediction_jobs.busy and panel.session.slide is None
    assert panel.session.overlays[0].prediction.predicted_mask.any()
    assert "Drag an H&E slide" in panel.slide_box.pixel_size_label.text()
    until(lambda: has_no_threads(panel))


def test_closing_the_panel_cancels_the_job(panel: PredictWidget, until, qtbot):
    start_map(panel, until)
    panel.session.viewer.window.remove_dock_widget(panel)
    panel.close()
    assert not panel.prediction_jobs.busy
    until(lambda: has_no_threads(panel))
    qtbot.wait(100)


def test_closing_the_window_cancels_the_job(panel: PredictWidget, until):
    start_map(panel, until)
    maps = panel.prediction_jobs
    panel.session.viewer.close()
    assert not maps.busy
    assert maps.wait()


def test_layers_can_be_renamed_and_reordered(panel: PredictWidget, middle, until):
    viewer, session = panel.session.viewer, panel.session
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    overlay = session.overlays[0]
    session.slide.layer.name = "my slide"
    overlay.layer.name = "my map"
    viewer.layers.move(viewer.layers.index(overlay.layer), 0)
    session.step_gene(1)
    assert overlay.layer.name == "my map"  # a name given by hand stays
    wanted = overlay.prediction.get_gene_values(session.gene)
    np.testing.assert_array_equal(
        overlay.layer.tiles, overlay.prediction.target.grid.to_raster(wanted)
    )
    panel.target_box.start_prediction()
    finish(panel, until)
    (extended,) = session.overlays
    assert extended is not overlay and extended.layer.name == "my map"
    assert viewer.layers.index(extended.layer) == 0


def test_two_viewers_are_independent(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until
):
    one, two = make_panel(), make_panel()
    assert get_session(one.session.viewer) is one.session is not two.session
    one.session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    until(lambda: one.session.slide.tissue is not None)
    assert two.session.slide is None
    bars = [panel.session.viewer.canvas.overlays.scale_bar for panel in (one, two)]
    assert bars[0].visible and not bars[1].visible  # there is nothing to measure
    two.session.set_gene("CD74")
    assert one.session.gene != "CD74"
    point = one.session.slide.tissue.representative_point()
    one.click_predictor.predict_at(point.x, point.y)
    until(lambda: one.session.spot is not None)
    assert two.session.spot is None and not two.session.overlays


def test_slide_follows_the_selected_layer(panel: PredictWidget, tiny_slide_file, tmp_path, until):
    copy = tmp_path / "other.ome.tif"
    shutil.copy(tiny_slide_file, copy)
    first = panel.session.slide
    panel.session.viewer.open(copy, plugin="napari-dkan")
    assert panel.session.slide is not first and panel.slide_box.slide_list.count() == 2
    panel.session.viewer.layers.selection.active = first.layer
    assert panel.session.slide is first
    until(lambda: not panel.prefetcher.busy)


def test_slide_of_another_reader_is_used(make_panel: Callable[..., PredictWidget], tmp_path, until):
    from PIL import Image

    file = tmp_path / "plain.png"
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(file)
    panel = make_panel()
    panel.session.viewer.open(file, plugin="napari")
    assert panel.session.slide.slide.path == file


def test_full_gpu_switches_to_the_cpu(panel: PredictWidget, middle, until, monkeypatch):
    predictor = panel.session.predictors.get(panel.session.slide, panel.session.checkpoint)

    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor.network, "fuse_tokens", no_memory)
    predictor.clear_cache()
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    assert "press Predict" in panel.message_label.text() and panel.session.settings.device == "cpu"
    assert not panel.session.overlays  # an empty map leaves no layer
    monkeypatch.undo()
    panel.target_box.start_prediction()
    finish(panel, until)
    assert panel.session.overlays[0].prediction.predicted_mask.all()


def test_click_is_predicted_while_a_map_runs(panel: PredictWidget, middle, until):
    start_map(panel, until)
    panel.session.change_settings(target_mode=TargetMode.CLICK)
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    finish(panel, until)
    assert all(o.prediction.predicted_mask.all() for o in panel.session.overlays)


def test_checkpoint_change_drops_the_spot_but_not_the_map(
    panel: PredictWidget, middle, until, tiny_checkpoint_file, tmp_path
):
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    copy = tmp_path / "other.safetensors"
    shutil.copy(tiny_checkpoint_file, copy)
    before = panel.session.checkpoint
    panel.model_box.load(copy)
    until(lambda: panel.session.checkpoint is not before)
    assert panel.session.spot is None and len(panel.session.overlays) == 1
    assert panel.model_box.checkpoint_combo.currentText() == "other.safetensors"
    until(lambda: not panel.prefetcher.busy)
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    assert len(panel.session.overlays) == 2


def test_regions_keep_their_position_when_the_pixel_size_is_entered(panel: PredictWidget, middle):
    layer = draw(panel, square(*middle, 300))
    panel.session.viewer_slides.set_mpp(0.5)
    np.testing.assert_allclose(layer.scale, 0.5)
    np.testing.assert_allclose(panel.session.slide.layer.scale, 0.5)
    corner = layer.data_to_world(layer.data[0][0])
    back = swap_xy(panel.session.slide.layer.world_to_data(corner))
    np.testing.assert_allclose(back, np.array(middle) - 300)


def test_map_keeps_its_position_when_the_pixel_size_is_corrected(
    panel: PredictWidget, middle, until, tiny_slide_file, tmp_path
):
    """The other slide's layers stay as they are."""
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    first, overlay = panel.session.slide, panel.session.overlays[0]
    copy = tmp_path / "other.ome.tif"
    shutil.copy(tiny_slide_file, copy)
    panel.session.viewer.open(copy, plugin="napari-dkan")
    panel.session.viewer_slides.set_mpp(0.35)
    np.testing.assert_allclose(overlay.layer.tile_scale, 140)
    panel.session.viewer_slides.set_current(first)
    row = 3
    x, y = overlay.prediction.target.spots.xy[row]
    panel.session.viewer_slides.set_mpp(0.35)
    np.testing.assert_allclose(overlay.layer.tile_scale, 70)
    wanted = overlay.prediction.get_gene_values(panel.session.gene)[row]
    assert overlay.value_at((y * 0.35, x * 0.35)) == wanted
    until(lambda: not panel.prefetcher.busy)


def test_reopened_panel_shows_the_session(panel: PredictWidget, middle, until, qtbot):
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    session, window = panel.session, panel.session.viewer.window
    (dock,) = [d for name, d in window.dock_widgets.items() if d is panel]
    window.remove_dock_widget(dock)
    dock.deleteLater()
    qtbot.wait(50)
    session.step_gene(1)  # nobody is there to draw it, and nothing breaks
    again = PredictWidget(session.viewer)
    window.add_dock_widget(again, name="again", area="right")
    assert again.session is session and again.gene_box.search_field.text() == session.gene
    overlay = session.overlays[0]
    session.step_gene(1)
    wanted = overlay.prediction.target.grid.to_raster(
        overlay.prediction.get_gene_values(session.gene)
    )
    np.testing.assert_array_equal(overlay.layer.tiles, wanted)
    again.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    assert len(session.overlays) == 2
    until(lambda: not again.prefetcher.busy)
    again.shut_down()


def test_rate_is_measured_per_checkpoint_and_device(
    panel: PredictWidget, middle, until, tiny_checkpoint_file, tmp_path
):
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    session = panel.session
    panel.target_box.update_plan()
    assert "about" in panel.target_box.plan_label.text()
    session.predictors.current.clear_cache()  # tiles that are kept take no time
    session.predictors.tile_rates = {session.rate_key(): 1e-3}  # absurdly slow, to be told apart
    panel.target_box.update_plan()
    assert "\u00a0h" in panel.target_box.plan_label.text()
    session.change_settings(device="cpu")
    assert panel.prefetcher.busy  # timed anew
    panel.target_box.update_plan()
    assert "\u00a0h" not in panel.target_box.plan_label.text()
    until(lambda: not panel.prefetcher.busy)


def test_points_of_a_rotated_layer_keep_their_position(panel: PredictWidget):
    from napari_dkan.viewer.jobs.target_from_layers import target_from_layers

    session = panel.session
    layer = session.viewer.add_points(
        [[100, 200], [300, 50], [250, 260]], scale=(2, 2), rotate=10, translate=(60, 90), units="um"
    )
    session.change_settings(target_mode=TargetMode.SPOTS)
    xy = target_from_layers(session, layer, None).spots.xy
    for point, (x, y) in zip(layer.data, xy, strict=True):
        np.testing.assert_allclose(layer.data_to_world(point), (y * 0.7, x * 0.7), atol=1e-6)


def test_finer_map_is_above_the_first_and_both_follow_the_gene(panel: PredictWidget, middle, until):
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    slide, ring = panel.session.slide, Polygon(square(*middle, 200))
    finer = target_from_region(ring, 100.0, slide.mpp, slide.slide.width, slide.slide.height)
    panel.prediction_jobs.predict(finer)
    finish(panel, until)
    first, second = (o.layer for o in panel.session.overlays)
    layers = panel.session.viewer.layers
    regions = panel.target_box.regions_layer()
    assert layers.index(first) < layers.index(second) < layers.index(regions)
    for _ in range(2):
        panel.session.step_gene(1)
        assert first.name != second.name
        assert all(n.name.startswith(panel.session.gene) for n in (first, second))


def test_replaced_checkpoint_is_freed(
    panel: PredictWidget, tiny_checkpoint_file, rival_file, until
):
    """Found by benchmarks/soak.py: each one that was loaded stayed in memory."""
    first = weakref.ref(panel.session.checkpoint)
    for path in (rival_file, tiny_checkpoint_file, rival_file):
        panel.model_box.load(path)
        until(lambda path=path: panel.session.checkpoint.path == path)
        until(lambda: not panel.prefetcher.busy)

    def gone() -> bool:
        gc.collect()
        return first() is None

    until(gone)


def test_closed_window_is_freed(make_napari_viewer, tiny_slide_file, until):
    """Each window that was closed stayed in memory, with its slide and its network."""

    def visit():
        viewer = make_napari_viewer()
        panel = PredictWidget(viewer)
        viewer.window.add_dock_widget(panel, name="DKAN: predict")
        viewer.open(tiny_slide_file, plugin="napari-dkan")
        session = panel.session
        until(lambda: session.checkpoint is not None and session.slide is not None)
        until(lambda: not panel.prefetcher.busy)
        held = viewer, session, session.slide, session.checkpoint
        panel.shut_down()
        viewer.close()
        return [weakref.ref(each) for each in held]

    left = visit()

    def gone() -> bool:
        gc.collect()
        return all(each() is None for each in left)

    until(gone)

"""Predictions made at another pixel size, or on a slide that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_dkan.viewer.layers.overlay_lookup import get_selected_map

from .prediction_steps import draw, everything, finish

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def predict_everything(panel: PredictWidget, until):
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    return panel.session.overlays[-1]


def enter_pixel_size(panel: PredictWidget, mpp: float) -> None:
    panel.slide_box.pixel_size_field.setValue(mpp)
    panel.slide_box.apply_button.click()


def test_another_pixel_size_hides_and_names_what_was_made_before(
    panel: PredictWidget, middle, until
):
    session = panel.session
    mpp = session.slide.mpp
    overlay = predict_everything(panel, until)
    name = overlay.layer.name
    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    clicked = session.overlays[-1]

    enter_pixel_size(panel, mpp * 1.5)
    assert not overlay.layer.visible and not clicked.layer.visible
    assert overlay.layer.name == f"{name} (made at {mpp:.4g} um/px)"
    assert session.spot is None and "this spot" not in session.viewer.layers
    text = panel.message_label.text()
    assert f"{mpp * 1.5:.4g} um/px now" in text and "predict again" in text
    session.step_gene(1)  # what is hidden is not named anew
    assert "made at" in overlay.layer.name and not overlay.layer.visible
    session.step_gene(-1)

    enter_pixel_size(panel, mpp)
    assert overlay.layer.visible and clicked.layer.visible and overlay.layer.name == name


def test_outdated_values_count_nowhere(panel: PredictWidget, until):
    histogram, display = panel.gene_box.histogram_box, panel.display
    old = predict_everything(panel, until)
    mpp = panel.session.slide.mpp
    until(lambda: not histogram.busy and not histogram.isHidden())
    enter_pixel_size(panel, mpp * 1.5)
    until(histogram.isHidden)
    assert " of " not in panel.gene_box.hatch_checkbox.text()
    new = predict_everything(panel, until)
    until(lambda: histogram.plot._content is not None and not histogram.busy)
    assert f" {new.prediction.predicted_mask.sum():,} tiles" in histogram.plot._content.title
    assert new.colorbar.visible
    enter_pixel_size(panel, mpp)  # the newest map is not the one that is shown
    assert old.colorbar.visible and get_selected_map(panel.session) is old
    old.prediction.values[:] = np.linspace(2, 3, len(old.prediction.values))[:, None]
    low, high = display.contrast_limits()
    assert 2 <= low < high <= 3


def test_a_map_that_was_hidden_by_hand_stays_hidden(panel: PredictWidget, until):
    overlay = predict_everything(panel, until)
    mpp = panel.session.slide.mpp
    overlay.layer.visible = False
    enter_pixel_size(panel, mpp * 1.5)
    enter_pixel_size(panel, mpp)
    assert not overlay.layer.visible


def test_a_running_job_ends_with_its_pixel_size(panel: PredictWidget, until):
    panel.session.predictors.get(panel.session.slide, panel.session.checkpoint).clear_cache()
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    assert panel.prediction_jobs.busy
    enter_pixel_size(panel, panel.session.slide.mpp * 1.5)
    assert not panel.prediction_jobs.busy
    until(panel.prediction_jobs.wait)


def test_a_spot_goes_with_its_slide(panel: PredictWidget, middle, until):
    session = panel.session
    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    session.viewer.layers.remove(session.slide.layer)
    assert session.spot is None
    assert "Click on tissue" in panel.spot_box.position_label.text()

"""Unreliable tiles are hatched and explained; a slide unlike the training data gives a warning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from shapely import Point

from napari_dkan.inference.predict import predict
from napari_dkan.inference.target import target_from_region
from napari_dkan.inference.tile_qc_features import QC_FEATURE_NAMES
from napari_dkan.model.checkpoint.training_reference import (
    DISTANCE_FEATURE,
    TrainingReference,
    compute_quantiles,
    compute_whitened_distance,
    fit_whitening,
)
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


@pytest.fixture
def strict_panel(panel: PredictWidget, until):
    """The panel with a checkpoint whose training spots all had more tissue than half of these
    tiles have."""
    session = panel.session
    slide, checkpoint = session.slide, session.checkpoint
    predictor = session.predictors.get(slide, checkpoint)
    size = slide.slide.width, slide.slide.height
    everywhere = target_from_region(slide.tissue, checkpoint.spot_pitch_um, slide.mpp, *size)
    seen = predict(predictor, everywhere)
    mean, axes = fit_whitening(seen.tokens)
    noted = {n: seen.qc_features[:, i] for i, n in enumerate(QC_FEATURE_NAMES)}
    noted |= {
        DISTANCE_FEATURE: compute_whitened_distance(seen.tokens, mean, axes),
        "tissue": noted["tissue"] + 0.4,
    }
    reference = TrainingReference(
        n_spots=len(seen.target),
        feature_names=(*QC_FEATURE_NAMES, DISTANCE_FEATURE),
        feature_quantiles=compute_quantiles(list(noted.values())),
        slide_names=("drawn",),
        slide_means=np.array([[v.mean() for v in noted.values()]], np.float32),
        slide_mpp=(slide.mpp,),
        token_mean=mean,
        token_axes=axes,
    )
    session.set_checkpoint(replace(checkpoint, reference=reference))
    until(lambda: not panel.prefetcher.busy and not panel.slide_check_banner.busy)
    return panel


def predict_map(panel: PredictWidget, until):
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    until(lambda: panel.target_box.predict_button.isEnabled())
    panel.target_box.predict_button.click()
    (overlay,) = panel.session.overlays  # with its layer, before the thread begins
    until(lambda: len(hatched_layers(panel)) == 1)  # also where the first tiles are reliable
    until(lambda: not panel.prediction_jobs.busy)
    assert panel.session.overlays == [overlay]
    return panel.session.overlays[-1]


def hatched_layers(panel: PredictWidget):
    return [la for la in panel.session.viewer.layers if la.name.startswith("unreliable")]


def test_unreliable_tiles_are_hatched_until_switched_off(strict_panel: PredictWidget, until):
    overlay = predict_map(strict_panel, until)
    few, of = strict_panel.reliability.count_unreliable(overlay)
    assert 0 < few <= of == len(overlay.prediction.target)
    (layer,) = hatched_layers(strict_panel)
    # as many tiles are painted as are doubtful, each where its tile is
    side = round(overlay.layer.tile_scale[0] / layer.scale[0])
    painted = np.asarray(layer.data)[side // 2 :: side, side // 2 :: side, 3] > 0
    assert painted.sum() == few
    row, column = np.argwhere(painted)[0]
    world = layer.data_to_world(((row + 0.5) * side, (column + 0.5) * side))
    assert overlay.row_at(tuple(world)) is not None
    assert f"{few:,} of {of:,}" in strict_panel.gene_box.hatch_checkbox.text()
    assert np.isfinite(overlay.prediction.values[:, 0]).all()  # nothing is left out
    overlay.layer.visible = False
    assert not layer.visible
    overlay.layer.visible = True
    strict_panel.gene_box.hatch_checkbox.click()
    assert not hatched_layers(strict_panel)
    strict_panel.gene_box.hatch_checkbox.click()
    assert len(hatched_layers(strict_panel)) == 1
    strict_panel.session.viewer.layers.remove(overlay.layer)
    assert not hatched_layers(strict_panel)


def test_removed_hatching_switches_the_setting_off(strict_panel: PredictWidget, until):
    predict_map(strict_panel, until)
    strict_panel.session.viewer.layers.remove(hatched_layers(strict_panel)[0])
    assert (
        not strict_panel.session.settings.hatch_unreliable
        and not strict_panel.gene_box.hatch_checkbox.isChecked()
    )
    strict_panel.session.step_gene(1)
    assert not hatched_layers(strict_panel)


def test_clicked_spot_shows_its_reliability(strict_panel: PredictWidget, until):
    slide = strict_panel.session.slide
    width, height = slide.slide.width, slide.slide.height
    corners = [(80.0, 80.0), (width - 80.0, 80.0), (80.0, height - 80.0)]
    x, y = max(corners, key=lambda xy: slide.tissue.distance(Point(xy)))  # glass
    strict_panel.session.change_settings(tissue_only=False)
    strict_panel.click_predictor.predict_at(x, y)
    until(lambda: strict_panel.session.spot is not None)
    assert "reliability: poor" in strict_panel.spot_box.position_label.text()
    assert "little tissue" in strict_panel.spot_box.position_label.text()
    assert len(hatched_layers(strict_panel)) == 1


def test_no_reliability_without_a_reference(panel: PredictWidget, middle, until):
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    assert "reliability" not in panel.spot_box.position_label.text()
    assert not panel.gene_box.hatch_checkbox.isVisibleTo(panel) and not hatched_layers(panel)
    assert not panel.slide_check_banner.text()


def test_banner_warns_of_another_stain(strict_panel: PredictWidget, until):
    """The same checkpoint, had its training slides been much paler."""
    session = strict_panel.session
    reference = session.checkpoint.reference
    at = reference.feature_names.index("haematoxylin")
    by_slide, levels = reference.slide_means.copy(), reference.feature_quantiles.copy()
    by_slide[:, at] *= 0.1
    levels[at] *= 0.1
    pale = replace(reference, slide_means=by_slide, feature_quantiles=levels)
    session.set_checkpoint(replace(session.checkpoint, reference=pale, sha256="another"))
    until(lambda: "haematoxylin" in strict_panel.slide_check_banner.text())
    assert strict_panel.slide_check_banner.isVisibleTo(strict_panel)
    session.set_checkpoint(replace(session.checkpoint, reference=None, sha256="older"))
    assert not strict_panel.slide_check_banner.isVisibleTo(strict_panel)

"""Steps of tests that predict a region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def draw(panel: PredictWidget, *rings):
    """Draw polygons (x, y), in level-0 px, in the region layer."""
    panel.target_box.mode_buttons[TargetMode.REGION].click()
    layer = panel.target_box.regions_layer()
    for ring in rings:
        layer.add_polygons([swap_xy(np.array(ring, float))])
    layer.mode = "pan_zoom"
    panel.target_box.update_plan()
    return layer


def square(x, y, half):
    """A square ring around (x, y)."""
    return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]


def everything(panel: PredictWidget):
    """A ring around the whole slide."""
    slide = panel.session.slide.slide
    return square(slide.width / 2, slide.height / 2, slide.width / 2 - 1)


def finish(panel: PredictWidget, until):
    """Wait for the map and its genes."""
    until(lambda: not panel.prediction_jobs.busy and not panel.gene_decode_job.busy)

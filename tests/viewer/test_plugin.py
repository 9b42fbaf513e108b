"""Menu entries, samples, tooltip and the demo."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest
from PIL import Image

from napari_dkan.viewer.session.pixel_size_sources import ARRAY_COLUMNS
from napari_dkan.viewer.session.viewer_settings import TargetMode
from napari_dkan.viewer.widgets.gl_compat import import_torch

from .prediction_steps import draw, finish, square

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def test_panel_opens_from_the_menu(make_napari_viewer, until):
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-dkan", "DKAN: predict")
    until(lambda: panel.session.checkpoint is not None)
    assert panel.model_box.checkpoint_combo.currentText() == "HER2+ breast (bundled)"
    assert "depth-partial PCC 0.42 of at most 0.67" in panel.model_box.summary_label.text()
    assert panel.target_box.mode_buttons[TargetMode.CLICK].isChecked()
    panel.shut_down()


def test_synthetic_sample_opens(make_napari_viewer):
    viewer = make_napari_viewer()
    slide, spots = viewer.open_sample("napari-dkan", "synthetic")
    assert slide.rgb and slide.multiscale and "simulated" in slide.name
    np.testing.assert_allclose(slide.scale, 0.5)
    assert set(ARRAY_COLUMNS) <= set(spots.features) and not spots.visible


def test_real_sample_is_predicted_at_its_array_spots(
    make_panel: Callable[..., PredictWidget], data_dir, monkeypatch, until
):
    """The way the network was trained: array spots that see each other."""
    monkeypatch.setenv("NAPARI_DKAN_DATA", str(data_dir))
    panel = make_panel()
    panel.session.viewer.open_sample("napari-dkan", "her2-c3")
    assert "from the spot array" in panel.slide_box.pixel_size_label.text()
    assert panel.session.slide.pixel_size.mpp == pytest.approx(0.688, abs=0.01)
    until(lambda: panel.session.slide.tissue is not None)
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.start_prediction()
    finish(panel, until)
    prediction = panel.session.overlays[0].prediction
    assert prediction.target.kind == "array" and len(prediction.target) == 182
    assert prediction.predicted_mask.all()


def test_tooltip_shows_gene_value_and_units(panel: PredictWidget, middle, until, monkeypatch):
    said = []
    monkeypatch.setattr(
        "napari_dkan.viewer.layers.overlay_display.QToolTip.showText",
        lambda place, text: said.append(text),
    )
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    overlay = panel.session.overlays[0]
    x, y = overlay.prediction.target.spots.xy[0]
    panel.session.viewer.cursor.position = (y * 0.7, x * 0.7)
    for callback in panel.session.viewer.mouse_move_callbacks:
        callback(panel.session.viewer, None)
    value = overlay.prediction.get_gene_values(panel.session.gene)[0]
    (text,) = said
    assert text.startswith(f"{panel.session.gene} predicted {value:.2f}") and "log10" in text
    overlay.layer.visible = False
    for callback in panel.session.viewer.mouse_move_callbacks:
        callback(panel.session.viewer, None)
    assert len(said) == 1


def test_only_one_color_bar_is_shown(panel: PredictWidget, middle, until):
    panel.click_predictor.predict_at(*middle)
    until(lambda: panel.session.spot is not None)
    draw(panel, square(*middle, 300))
    panel.target_box.start_prediction()
    finish(panel, until)
    shown = [o.colorbar.visible for o in panel.session.overlays]
    assert shown == [False, True]


def test_torch_is_imported_in_a_process_with_opengl():
    """In a fresh process, since here torch is there already: it crashed with software OpenGL."""
    code = (
        "import napari; v = napari.Viewer(); v.screenshot(flash=False)\n"
        "from napari_dkan.viewer.widgets.gl_compat import import_torch; import_torch()\n"
        "import torchvision; print('loaded')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "loaded" in done.stdout, done.stderr[-2000:]
    import_torch()


@pytest.mark.timeout(320)
def test_scripted_demo_saves_its_results(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "napari_dkan", "demo", "--drive", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "config")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(tmp_path / "window.png") in done.stdout
    picture = np.asarray(Image.open(tmp_path / "window.png").convert("RGB"))
    assert picture.shape[0] > 600 and picture.std() > 20
    data = anndata.read_h5ad(tmp_path / "prediction.h5ad")
    assert data.n_obs > 20 and np.isfinite(data.X).all()
    assert data.uns["napari_dkan"]["kind"] == "predicted"

"""The spacing of a spot array in napari against the pixel size that the slide states."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.layers import Points
from PIL import Image
from qtpy.QtCore import Qt

from napari_dkan.viewer.session.viewer_settings import TargetMode

SAID = "disagree: 0.07 um/px (TIFF resolution) and 0.7 um/px (spot array 'my spots'); enter the"


@pytest.fixture
def wrong_panel(make_panel, tiny_slide_file, tmp_path, until):
    """The panel on the small slide with a tag that is wrong by ten."""
    path = tmp_path / "wrong.tif"
    tifffile.imwrite(
        path, tifffile.imread(tiny_slide_file), photometric="rgb", metadata=None, tile=(256, 256),
        resolution=(1e4 / 0.07, 1e4 / 0.07), resolutionunit="CENTIMETER",
    )  # fmt: skip
    made = make_panel()
    made.session.change_settings(prefetch=False)
    made.session.viewer.open(path, plugin="napari-dkan")
    until(lambda: made.session.slide is not None and made.session.slide.tissue is not None)
    return made


def add_array(panel, pitch_um: float = 200.0, mpp: float = 0.7) -> Points:
    at = np.stack(np.meshgrid(range(4), range(4)), axis=-1).reshape(-1, 2)
    layer = Points(
        300 + pitch_um / mpp * at[:, ::-1],
        features={"array_x": at[:, 0], "array_y": at[:, 1]},
        name="my spots",
        ndim=2,
        scale=panel.session.slide.layer.scale,
        units=panel.session.slide.layer.units,
        axis_labels=("y", "x"),
    )
    panel.session.viewer.add_layer(layer)
    return layer


def test_array_that_contradicts_the_slide_is_refused_until_the_user_decides(
    wrong_panel, qtbot
) -> None:
    panel = wrong_panel
    banner, box = panel.slide_check_banner, panel.target_box
    add_array(panel)
    assert SAID in banner.text() and banner.isVisibleTo(panel)
    qtbot.mouseClick(box.mode_buttons[TargetMode.SPOTS], Qt.MouseButton.LeftButton)
    box.update_plan()
    assert SAID in box.plan_label.text() and not box.predict_button.isEnabled()
    assert "--" not in banner.text() + box.plan_label.text()

    qtbot.mouseClick(panel.slide_box.change_button, Qt.MouseButton.LeftButton)
    field = panel.slide_box.pixel_size_field
    field.selectAll()
    qtbot.keyClicks(field, "0.7")
    qtbot.mouseClick(panel.slide_box.apply_button, Qt.MouseButton.LeftButton)
    assert panel.session.slide.mpp == pytest.approx(0.7)
    box.update_plan()
    assert "16" in box.plan_label.text() and box.predict_button.isEnabled()
    assert "disagree" not in banner.text()


def test_array_that_agrees_is_predicted(panel, tmp_path) -> None:
    layer = add_array(panel, mpp=0.74)  # 6 % apart
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert panel.target_box.predict_button.isEnabled()
    assert "disagree" not in panel.slide_check_banner.text()

    # It says nothing about another slide, which states no pixel size.
    session, photo = panel.session, tmp_path / "photo.png"
    Image.fromarray(np.full((400, 400, 3), 230, np.uint8)).save(photo)
    session.viewer.open(photo, plugin="napari-dkan")
    session.viewer_slides.set_current(session.slides[-1])
    assert session.slide.slide.width == 400 and session.slide.pixel_size is None
    session.viewer.layers.remove(session.slide.layer)
    panel.session.viewer.layers.remove(layer)
    add_array(panel, mpp=0.8)  # 14 % apart
    assert "disagree" in panel.slide_check_banner.text()
    panel.session.viewer.layers.clear()
    assert "disagree" not in panel.slide_check_banner.text()


def test_array_of_an_impossible_size_is_refused(panel) -> None:
    add_array(panel, pitch_um=4.0)  # 35 um/px, which no slide has
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert "disagree" in panel.target_box.plan_label.text()


def test_array_coordinates_that_are_text_are_no_array(panel) -> None:
    layer = add_array(panel)
    layer.features = {"array_x": ["a"] * 16, "array_y": ["b"] * 16}
    panel.target_box.mode_buttons[TargetMode.SPOTS].click()
    panel.target_box.update_plan()
    assert panel.target_box.predict_button.isEnabled()

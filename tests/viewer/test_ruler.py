"""The ruler: pixel size from a line on the slide and its true length."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dkan.slide import PixelSize
from napari_dkan.viewer.plugin.file_readers import read_slides
from napari_dkan.viewer.session.pixel_size_sources import format_pixel_size
from napari_dkan.viewer.session.user_history import load_pixel_sizes, save_pixel_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


@pytest.fixture
def plain_slide(tmp_path):
    """A picture without a pixel size."""
    file = tmp_path / "plain.png"
    Image.fromarray(np.full((800, 900, 3), 200, np.uint8)).save(file)
    return file


def drag(canvas, start, *places):
    """Press, move and let go, as a mouse does."""
    left = Qt.MouseButton.LeftButton
    QTest.mouseMove(canvas, start)
    QTest.mousePress(canvas, left, pos=start)
    for place in places:
        QTest.mouseMove(canvas, place)
        QApplication.processEvents()
    QTest.mouseRelease(canvas, left, pos=places[-1])
    QApplication.processEvents()


def test_line_and_length_set_the_pixel_size(
    make_panel: Callable[..., PredictWidget], plain_slide, qtbot, until
):
    panel = make_panel(show=True)
    panel.session.change_settings(prefetch=False)
    session, box = panel.session, panel.slide_box
    viewer, layers = session.viewer, session.viewer.layers
    viewer.open(plain_slide, plugin="napari-dkan")
    before = layers.selection.active
    viewer.reset_view()
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.wait(200)
    assert box.ruler_box.isHidden()

    box.ruler_button.click()
    assert not box.ruler_box.isHidden() and not box.ruler_box.apply_button.isEnabled()
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    drag(canvas, middle, *(middle + QPoint(20 * i, 0) for i in (1, 3, 5)))
    until(lambda: box.ruler.layer.mode == "direct")
    length = box.ruler.length_px
    line = box.ruler.layer.data[0]
    assert length == pytest.approx(np.hypot(*(line[1] - line[0]))) and length > 50
    assert f"{length:,.0f} px" in box.ruler_box.instruction_label.text()
    assert not panel.click_predictor.busy and session.message.text == ""
    assert panel.target_box.regions_layer() is None  # a line is no region

    box.ruler_box.apply_button.click()  # no length typed yet
    assert session.message.is_warning and session.slide.pixel_size is None
    box.ruler_box.length_field.setValue(length * 0.7 / 1000)
    box.ruler_box.unit_combo.setCurrentText("mm")
    box.ruler_box.apply_button.click()
    assert session.slide.mpp == pytest.approx(0.7, rel=0.02)  # three decimals of a mm
    assert (
        "measured with the ruler" in box.pixel_size_label.text() and not session.message.is_warning
    )
    assert list(layers) == [before] and layers.selection.active is before
    assert box.ruler_box.isHidden() and not box.ruler_button.isChecked()
    np.testing.assert_allclose(before.scale, session.slide.mpp)

    (data,) = read_slides(str(plain_slide))  # the next time it is known, and who said it
    assert data[1]["metadata"]["napari-dkan slide"][1] == session.slide.pixel_size

    box.ruler_button.click()  # checked once more, and given up: on the canvas, then in the panel
    drag(canvas, middle, middle + QPoint(60, 40), middle + QPoint(80, 60))
    until(lambda: box.ruler.layer.mode == "direct")
    assert f"um at {session.slide.mpp:.4g} um/px" in box.ruler_box.instruction_label.text()
    assert box.ruler.layer.features["length"].iloc[0].endswith("um")
    known = session.slide.pixel_size
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    assert not box.ruler.busy and session.slide.pixel_size == known
    box.ruler_button.click()
    qtbot.keyClick(box.ruler_box.length_field, Qt.Key.Key_Escape)
    assert not box.ruler.busy and list(layers) == [before]

    box.ruler_button.click()  # its layer is deleted, or the slide
    layers.remove(box.ruler.layer)
    assert not box.ruler.busy and box.ruler_box.isHidden()
    box.ruler_button.click()
    layers.remove(before)
    assert not box.ruler.busy and not layers

    box.ruler_button.click()
    assert "Open a slide first" in panel.message_label.text()


def test_reset_restores_the_pixel_size_of_the_file(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until
):
    panel = make_panel()
    session, box = panel.session, panel.slide_box
    session.change_settings(prefetch=False)
    session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    stated = session.slide.pixel_size
    assert box.reset_button.isHidden()
    session.viewer_slides.set_mpp(0.35, "ruler")
    assert "0.35 um/px, measured with the ruler (0.7 from the OME" in box.pixel_size_label.text()
    assert "2.0 times" not in panel.slide_check_banner.text()  # nobody noted what it was trained on
    (data,) = read_slides(str(tiny_slide_file))
    assert data[1]["scale"] == (0.35, 0.35)
    box.reset_button.click()
    assert session.slide.pixel_size == stated and not load_pixel_sizes()
    np.testing.assert_allclose(session.slide.layer.scale, 0.7)
    until(lambda: not panel.prefetcher.busy)


def test_pixel_size_is_checked_before_prediction(
    make_panel: Callable[..., PredictWidget], plain_slide, until
):
    panel = make_panel()
    session = panel.session
    session.change_settings(prefetch=False)
    session.viewer.open(plain_slide, plugin="napari-dkan")
    assert panel.slide_check_banner.isHidden()
    session.viewer_slides.set_mpp(8.0)
    assert (
        "4.0 times as large" in panel.slide_check_banner.text()
        and not panel.slide_check_banner.isHidden()
    )
    session.viewer_slides.set_pixel_size(session.slide, PixelSize(0.5, "objective power"))
    assert "only an estimate" in panel.slide_check_banner.text()
    assert (
        "about 0.5 um/px, estimated from the objective power 20x"
        in panel.slide_box.pixel_size_label.text()
    )
    session.viewer_slides.set_mpp(0.5)
    assert panel.slide_check_banner.isHidden()
    until(lambda: not panel.prefetcher.busy)


def test_invalid_history_is_ignored(tmp_path):
    save_pixel_size("a", 0.5)
    save_pixel_size("b", 0.7, "ruler")
    assert load_pixel_sizes() == {"a": (0.5, ""), "b": (0.7, "ruler")}
    save_pixel_size("a", None)
    assert load_pixel_sizes() == {"b": (0.7, "ruler")}
    file = next(tmp_path.rglob("memory.json"))
    for text in ('{"mpp": 3}', '{"mpp": {"a": "x", "b": [1], "c": [null, 2]}}', "[]", "{"):
        file.write_text(text)
        assert load_pixel_sizes() == {}
    assert format_pixel_size(PixelSize(0.5, "entered before"), None) == "0.5 um/px, entered before"


def press_use(panel: PredictWidget, mpp: float) -> None:
    box = panel.slide_box
    box.pixel_size_field.setValue(mpp)
    QTest.mouseClick(box.apply_button, Qt.MouseButton.LeftButton)


def test_the_pixel_size_of_the_training_is_offered(
    make_panel: Callable[..., PredictWidget], plain_slide
):
    panel = make_panel()
    session, box = panel.session, panel.slide_box
    checkpoint = session.checkpoint
    session.change_settings(prefetch=False)
    reference = SimpleNamespace(
        slide_mpp=(0.6881, 0.6874, 0.6878), validate_dimensions=lambda *sizes: None
    )
    session.viewer.open(plain_slide, plugin="napari-dkan")
    session.set_checkpoint(replace(checkpoint, reference=None))
    assert box.pixel_size_field.value() == 0.5
    session.set_checkpoint(replace(checkpoint, reference=reference))
    assert box.pixel_size_field.value() == 0.6878
    assert "0.688 is that of the model's training" in box.pixel_size_label.text()

    session.checkpoint = None  # as while it is being loaded
    QTest.mouseClick(box.apply_button, Qt.MouseButton.LeftButton)
    assert "not loaded yet" in session.message.text and session.slide.pixel_size is None
    session.set_checkpoint(replace(checkpoint, reference=None))
    assert box.pixel_size_field.value() == 0.5 and not session.message.text
    box.pixel_size_field.setValue(0.6)  # what is typed stays
    session.set_checkpoint(replace(checkpoint, reference=reference))
    assert box.pixel_size_field.value() == 0.6


def test_an_unlikely_pixel_size_needs_a_second_press(
    make_panel: Callable[..., PredictWidget], plain_slide
):
    panel = make_panel()
    session = panel.session
    session.change_settings(prefetch=False)
    session.viewer.open(plain_slide, plugin="napari-dkan")
    press_use(panel, 15.0)
    assert session.slide.pixel_size is None
    assert "as large" in panel.message_label.text() and "again" in panel.message_label.text()
    press_use(panel, 12.0)  # another one is asked about as well
    assert session.slide.pixel_size is None
    press_use(panel, 12.0)
    assert session.slide.mpp == 12.0
    press_use(panel, 0.7)
    assert session.slide.mpp == 0.7

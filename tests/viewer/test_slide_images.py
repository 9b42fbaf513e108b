"""The image of a file with several, and the frame on a slide with a scan area, are chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from napari.layers import Points
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dkan.viewer.panels.regions.region_import import get_region_importer
from napari_dkan.viewer.panels.regions.spot_import import get_spot_importer
from napari_dkan.viewer.session.slide_arrangement import overlap

from ..slide_files import halves, picture
from ..test_files_tried_slides import write_scan_area
from ..vendor_files import scn
from .drop_files import drop

if TYPE_CHECKING:
    from qtpy.QtWidgets import QComboBox

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def choose(qtbot, combo: QComboBox, index: int) -> None:
    """Choose an entry with the keyboard."""
    combo.setFocus()
    key = Qt.Key.Key_Down if index > combo.currentIndex() else Qt.Key.Key_Up
    for _ in range(abs(index - combo.currentIndex())):
        QTest.keyClick(combo, key)


def ome_tiff(path: Path) -> Path:
    """Macro first, then the scan and a label."""
    images = {"macro image": (200, 300), "scan A": (600, 800), "label": (100, 150)}
    with tifffile.TiffWriter(path, ome=True) as writer:
        for i, (name, (height, width)) in enumerate(images.items()):
            writer.write(
                picture(height, width, i), photometric="rgb", tile=(64, 64),
                metadata={"Name": name, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
            )  # fmt: skip
    return path


@pytest.fixture
def panel(make_panel) -> PredictWidget:
    made = make_panel()
    made.session.change_settings(prefetch=False)
    return made


def test_label_and_macro_are_chosen_never_taken(panel, tmp_path, qtbot) -> None:
    box, session = panel.slide_box.file_image_box, panel.session
    session.viewer.open(ome_tiff(tmp_path / "a.ome.tif"), plugin="napari-dkan")
    combo = box.image_combo
    panel.sections["Slide"].expand()
    assert box.isVisibleTo(panel) and not box.frame_combo.isVisibleTo(panel)
    texts = [combo.itemText(i) for i in range(combo.count())]
    assert texts == [
        "macro image (300 x 200)",
        "scan A (800 x 600), the scan",
        "label (150 x 100)",
    ]
    assert combo.currentIndex() == 1 and session.slide.slide.width == 800
    read = panel.slide_box.account_label.text().splitlines()
    assert read[0] == "read: a.ome.tif, 800 x 600 px"
    assert read[1] == "image: scan A (of 3: macro image, scan A, label)"

    scan = session.slide
    choose(qtbot, combo, 2)
    label = session.slide
    assert label.slide.width == 150 and label.layer.name.endswith(", label")
    assert len(session.slides) == 2 and not overlap(scan, label)
    assert combo.currentIndex() == 2
    assert "image: label (of 3" in panel.slide_box.account_label.text()
    choose(qtbot, combo, 1)  # it is open
    assert session.slide is scan and len(session.slides) == 2 and combo.currentIndex() == 1
    session.viewer.layers.remove(scan.layer)
    assert session.slide is label
    choose(qtbot, combo, 1)  # it was closed
    assert session.slide.slide.width == 800 and session.slide.slide.chosen_image == ""
    assert session.slide.layer.name == "a"


def test_files_with_one_image_have_no_choice(panel, tiny_slide_file) -> None:
    panel.session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    panel.sections["Slide"].expand()
    assert not panel.slide_box.file_image_box.isVisibleTo(panel)
    assert panel.slide_box.account_label.text().startswith("read: drawn.ome.tif, ")


def test_image_that_cannot_be_opened_is_reported(panel, tmp_path, qtbot) -> None:
    path = ome_tiff(tmp_path / "a.ome.tif")
    panel.session.viewer.open(path, plugin="napari-dkan")
    path.unlink()
    choose(qtbot, panel.slide_box.file_image_box.image_combo, 2)
    assert "a.ome.tif" in panel.message_label.text()
    assert panel.slide_box.file_image_box.image_combo.currentIndex() == 1


def world_of(slide, x: float, y: float) -> np.ndarray:
    return np.asarray(slide.layer.data_to_world((y, x))[-2:])


@pytest.mark.parametrize("container", ["scn", "mrxs"])
def test_frame_of_the_glass_keeps_the_tissue_in_place(panel, tmp_path, qtbot, container) -> None:
    path, pixels, (left, top) = write_scan_area(container, tmp_path)
    session, box = panel.session, panel.slide_box.file_image_box
    session.viewer.open(path, plugin="napari-dkan")
    combo = box.frame_combo
    panel.sections["Slide"].expand()
    assert combo.isVisibleTo(panel) and combo.currentText() == "scan area, as in QuPath"
    assert "corner of the scan area" in panel.slide_box.account_label.text()
    before, camera = world_of(session.slide, 30, 20), tuple(session.viewer.scene.camera.center)

    choose(qtbot, combo, 1)
    slide = session.slide
    assert slide.slide.scan_origin == (left, top) and len(session.slides) == 1
    assert combo.currentText() == "whole glass"
    assert "corner of the whole glass" in panel.slide_box.account_label.text()
    np.testing.assert_allclose(world_of(slide, 30 + left, 20 + top), before, atol=1e-6)
    assert tuple(session.viewer.scene.camera.center) == camera
    seen = np.asarray(slide.layer.data[0][top : top + 50, left : left + 50])
    assert np.abs(seen.astype(float) - pixels[:50, :50]).mean() < 4

    choose(qtbot, combo, 0)
    assert session.slide.slide.scan_origin == (0, 0)
    np.testing.assert_allclose(world_of(session.slide, 30, 20), before, atol=1e-6)
    np.testing.assert_allclose(session.slide.layer.translate, 0, atol=1e-6)


def test_spots_that_count_from_the_glass_are_told_the_frame(panel, tmp_path, qtbot, until) -> None:
    path, pixels, (left, top) = write_scan_area("mrxs", tmp_path)
    session, box = panel.session, panel.slide_box.file_image_box
    session.viewer.open(path, plugin="napari-dkan")
    height, width = pixels.shape[:2]
    at = [(left + 2, top + 1), (left + width - 1, top + height - 1)]
    table = tmp_path / "spots.csv"
    table.write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in [*at, (left + width - 9, top)]))
    drop(session.viewer, table)
    until(lambda: not get_spot_importer(session).busy)
    until(lambda: session.message.is_warning or panel.target_box.points_combo.count() == 1)
    panel.target_box.update_plan()
    shown = panel.message_label.text() + panel.target_box.plan_label.text()
    assert "choose the frame 'whole glass' under Slide" in shown and "--" not in shown
    choose(qtbot, box.frame_combo, 1)
    assert box.frame_combo.currentText() == "whole glass"
    for layer in [x for x in session.viewer.layers if isinstance(x, Points)]:
        session.viewer.layers.remove(layer)
    drop(session.viewer, table)
    until(lambda: panel.target_box.points_combo.count() == 1)
    panel.target_box.update_plan()
    assert panel.target_box.plan_label.text().startswith("3 ")


def test_neighbours_are_not_covered_by_the_glass(panel, tmp_path, qtbot) -> None:
    session = panel.session
    for name, glass in (("a", (400, 60)), ("b", (20, 10))):
        (tmp_path / name).mkdir()
        path = scn(
            tmp_path / name / f"{name}.scn", halves(picture(512, 640), 3), 0.5, 20, glass, (400, 30)
        )
        session.viewer.open(path, plugin="napari-dkan")
    first, second = session.slides
    session.viewer_slides.set_current(first)
    choose(qtbot, panel.slide_box.file_image_box.frame_combo, 1)
    assert [s.layer for s in session.slides] == [first.layer, second.layer]
    assert not overlap(*session.slides)


def test_regions_that_came_first_lie_in_the_frame_of_the_slide(panel, tmp_path, until) -> None:
    """QuPath counts from the scan area, whichever frame the slide is opened with."""
    from napari.settings import get_plugin_settings

    ring = [[40, 30], [140, 30], [140, 130], [40, 130], [40, 30]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation"},
    }
    regions = tmp_path / "regions.geojson"
    regions.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    session = panel.session
    importer = get_region_importer(session)
    importer.import_file(regions)
    until(lambda: not importer.busy and len(session.viewer.layers) == 1)
    (layer,) = session.viewer.layers
    path, _, (left, top) = write_scan_area("scn", tmp_path)
    get_plugin_settings("napari-dkan").slides.whole_glass = True
    session.viewer.open(path, plugin="napari-dkan")
    corner = layer.data_to_world((30, 40))[-2:]
    np.testing.assert_allclose(corner, world_of(session.slide, 40 + left, 30 + top), atol=1e-6)

"""Tables of spots and regions of QuPath that are dropped on the window."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from napari.layers import Points, Shapes
from qtpy.QtCore import Qt

from napari_dkan.errors import SlideError
from napari_dkan.viewer.panels.regions.region_import import get_region_importer
from napari_dkan.viewer.panels.regions.spot_import import get_spot_importer
from napari_dkan.viewer.plugin.file_readers import get_spots_reader
from napari_dkan.viewer.session.viewer_settings import TargetMode

from .drop_files import drop

if TYPE_CHECKING:
    from pathlib import Path

XY = [(500.5, 600.25), (700.5, 600.25), (900.0, 800.0)]
TABLES = {
    "trailing.csv": "x,y,cluster\n" + "".join(f"{x},{y},1,\n" for x, y in XY),
    "semicolons.csv": "x;y\n" + "".join(f"{x};{y}\n".replace(".", ",") for x, y in XY),
    "spots.tsv": "x\ty\n" + "".join(f"{x}\t{y}\n" for x, y in XY),
    "spots.xlsx": "",
}


def write_table(name: str, folder: Path) -> Path:
    path = folder / name
    if path.suffix == ".xlsx":
        pd.DataFrame(XY, columns=["x", "y"]).to_excel(path, index=False)
    else:
        path.write_text(TABLES[name])
    return path


@pytest.mark.parametrize("name", TABLES)
def test_dropped_spots_lie_on_the_slide_and_are_predicted(panel, tmp_path, until, name) -> None:
    session, box = panel.session, panel.target_box
    importer = get_spot_importer(session)
    drop(session.viewer, write_table(name, tmp_path))
    until(lambda: not importer.busy and box.points_combo.count() == 1)
    layer = session.viewer.layers[name]
    assert isinstance(layer, Points)
    world = [session.slide.layer.data_to_world((y, x)) for x, y in XY]
    np.testing.assert_allclose([layer.data_to_world(at) for at in layer.data], world)
    assert session.settings.target_mode is TargetMode.SPOTS
    box.update_plan()
    assert box.points_combo.currentText() == name
    assert box.plan_label.text().startswith("3 ") and box.predict_button.isEnabled()
    assert panel.message_label.text().startswith(f"{name}: 3 spots.")


def test_array_and_pitch_of_a_file_are_kept(panel, tmp_path, until) -> None:
    """Bins of 16 um are no spots of 200 um."""
    at = np.stack(np.meshgrid(range(6), range(6)), axis=-1).reshape(-1, 2)
    table = pd.DataFrame({
        "barcode": [f"b{i}" for i in range(36)],
        "in_tissue": [0] + [1] * 35,
        "array_row": at[:, 1],
        "array_col": at[:, 0],
        "pxl_row_in_fullres": 400 + at[:, 1] * 16 / 0.7,
        "pxl_col_in_fullres": 400 + at[:, 0] * 16 / 0.7,
    })  # fmt: skip
    table.to_csv(tmp_path / "tissue_positions.csv", index=False)
    factors = {"bin_size_um": 16.0, "spot_diameter_fullres": 22.9, "tissue_hires_scalef": 0.1}
    (tmp_path / "scalefactors_json.json").write_text(json.dumps(factors))
    session, box = panel.session, panel.target_box
    drop(session.viewer, tmp_path / "tissue_positions.csv")
    until(lambda: box.points_combo.count() == 1)
    box.update_plan()
    assert box.plan_label.text().startswith("35 ") and box.predict_button.isEnabled()
    assert "1 not in tissue" in panel.message_label.text()
    assert "disagree" not in panel.slide_check_banner.text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ERBB2,CD74\n1,2\n3,4\n", "has no columns x and y"),
        ("x,y\n90000,90000\n", "lie outside the slide (2,048 x 2,048 px)"),
        ("x,y\n", "holds no spots"),
    ],
)
def test_other_tables_are_answered_in_words_of_the_window(
    panel, tmp_path, until, text, said
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    slide = panel.session.slide.slide
    drop(panel.session.viewer, file)
    until(lambda: panel.session.message.is_warning)
    said = said.replace("2,048 x 2,048", f"{slide.width:,} x {slide.height:,}")
    assert said in panel.message_label.text() and "table.csv" in panel.message_label.text()
    assert "--" not in panel.message_label.text()
    assert not [layer for layer in panel.session.viewer.layers if isinstance(layer, Points)]


def test_spots_without_a_slide(make_panel, tmp_path, until, tiny_slide_file) -> None:
    panel = make_panel()
    drop(panel.session.viewer, write_table("trailing.csv", tmp_path))
    until(lambda: panel.session.message.is_warning)
    assert panel.message_label.text().startswith("Open the slide of trailing.csv first")
    drop(panel.session.viewer, tiny_slide_file)
    assert panel.session.slide is not None and panel.message_label.text() == ""


def test_damaged_slide_is_answered_in_the_panel(make_panel, tmp_path) -> None:
    panel = make_panel()
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(SlideError):  # napari shows a notification
        panel.session.viewer.open(tmp_path / "empty.tif", plugin="napari-dkan")
    assert panel.message_label.text().startswith("The slide empty.tif cannot be used: the file is")


def test_micrometres_need_the_pixel_size_under_slide(make_panel, tmp_path, until) -> None:
    panel = make_panel()
    session = panel.session
    session.change_settings(prefetch=False)
    iio.imwrite(tmp_path / "slide.png", np.full((900, 900, 3), 200, np.uint8))
    session.viewer.open(tmp_path / "slide.png", plugin="napari-dkan")
    table = tmp_path / "qupath.csv"
    table.write_text("Centroid X µm,Centroid Y µm\n100,150\n200,250\n", encoding="utf-8")
    drop(session.viewer, table)
    until(lambda: session.message.is_warning)
    assert "Set it in the panel DKAN: predict, under Slide" in panel.message_label.text()
    assert "--" not in panel.message_label.text()
    session.viewer_slides.set_mpp(0.5)
    drop(session.viewer, table)
    until(lambda: panel.target_box.points_combo.count() == 1)
    layer = session.viewer.layers["qupath.csv"]
    np.testing.assert_allclose(layer.data, [(300, 200), (500, 400)])


def test_tables_of_napari_are_left_to_napari(tmp_path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("index,axis-0,axis-1\n0,1,2\n")
    assert get_spots_reader(str(points)) is None
    assert get_spots_reader(str(write_table("trailing.csv", tmp_path))) is not None
    assert get_spots_reader(str(tmp_path / "missing.csv")) is None


def feature(kind: str, low: int, high: int) -> dict:
    ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind}}


@pytest.mark.parametrize(("choice", "n_regions"), [("tma_core", 1), ("detection", 2)])
def test_objects_that_are_regions_are_chosen_with_one_press(
    panel, tmp_path, until, qtbot, choice, n_regions
) -> None:
    found = [feature("detection", 300, 340), feature("detection", 400, 440)]
    text = json.dumps({
        "type": "FeatureCollection", "features": [*found, feature("tma_core", 200, 1200)]
    })  # fmt: skip
    file = tmp_path / "cells.geojson"
    file.write_text(text)
    session, box = panel.session, panel.target_box.region_row
    buttons = box.object_buttons
    assert not any(b.isVisibleTo(panel) for b in buttons.values())
    drop(session.viewer, file)
    until(lambda: session.message.is_warning)
    said = panel.message_label.text()
    assert said.startswith("cells.geojson has no annotation but 2 detection, 1 tma_core.")
    assert "DKAN: predict, under Where" in said and "--" not in said
    assert all(b.isVisibleTo(panel) for b in buttons.values())
    qtbot.mouseClick(buttons[choice], Qt.MouseButton.LeftButton)
    until(lambda: not get_region_importer(session).busy and not session.message.is_warning)
    (layer,) = (layer for layer in session.viewer.layers if isinstance(layer, Shapes))
    assert len(layer.data) == n_regions
    assert not any(b.isVisibleTo(panel) for b in buttons.values())
    assert session.settings.target_mode is TargetMode.REGION

"""The panel of regions in a real viewer: classes, table, comparison, export."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Shapes
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit, QTreeWidgetItem
from shapely.geometry import box, shape

from napari_dkan.spatial.coordinates import swap_xy
from napari_dkan.spatial.region_files import read_named_regions
from napari_dkan.viewer.jobs.target_from_layers import add_tissue_layer, region_from_layer
from napari_dkan.viewer.layers.name_places import place_names
from napari_dkan.viewer.panels.regions.comparison_box import BROWSE, GENES, HALLMARK, REST
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.regions.regions_widget import RegionsWidget


def ring(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


@pytest.fixture
def qupath_file(tmp_path):
    """Two tumours, one with a hole, and stroma."""

    def feature(name, kind, color, *rings):
        about = {"objectType": "annotation", "classification": {"name": kind, "color": color}}
        if name:
            about["name"] = name
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": about,
        }

    tumour = [200, 0, 0]
    features = [
        feature("A", "Tumor", tumour, ring(300, 300, 800, 800), ring(400, 400, 600, 600)),
        feature("", "Tumor", tumour, ring(300, 900, 600, 1300)),
        feature("S", "Stroma", [0, 150, 90], ring(850, 300, 1300, 1300)),
    ]
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def regions(panel: PredictWidget, until):
    """The panel opened by a press in the Predict panel."""
    panel.target_box.region_row.regions_button.click()
    docked = panel.session.viewer.window.dock_widgets
    made = next(w for name, w in docked.items() if name.startswith("DKAN: regions"))
    yield made
    made.shut_down()


def settle(regions: RegionsWidget, until):
    until(lambda: not regions.model.busy)


def rows(regions: RegionsWidget) -> dict[str, list[str]]:
    """Cells of all rows by the name of the region."""
    found: dict[str, list[str]] = {}

    def visit(item: QTreeWidgetItem) -> None:
        count = regions.tree.columnCount()
        found[item.text(0)] = [item.text(c) for c in range(1, count)]
        for i in range(item.childCount()):
            visit(item.child(i))

    for i in range(regions.tree.topLevelItemCount()):
        visit(regions.tree.topLevelItem(i))
    return found


@pytest.fixture
def predicted(panel: PredictWidget, regions: RegionsWidget, until, qupath_file):
    """With regions of QuPath and the whole tissue predicted."""
    panel.session.viewer.open(qupath_file, plugin="napari-dkan")
    until(lambda: len(regions.model.groups) == 4)
    settle(regions, until)
    panel.session.change_settings(tissue_only=False)
    regions.predict_button.click()
    until(lambda: bool(panel.session.overlays) and not panel.prediction_jobs.busy)
    until(lambda: not panel.gene_decode_job.busy)
    settle(regions, until)
    return regions


def test_table_of_qupath_classes_follows_gene_and_shapes(predicted: RegionsWidget, until):
    session = predicted.session
    cells = rows(predicted)
    assert list(cells) == ["Tumor", "A", "Tumor #2", "Stroma"]
    area = (box(300, 300, 800, 800).area - 200**2) * 0.7e-3**2
    assert cells["A"][1] == f"{area:.2f}"
    prediction = session.overlays[-1].prediction
    x, y = prediction.target.spots.xy.T
    inside = (x > 850) & (x < 1300) & (y > 300) & (y < 1300) & prediction.predicted_mask
    assert inside.any()
    for gene in ("ERBB2", "CD74"):
        session.set_gene(gene)
        until(lambda gene=gene: predicted.model.table.gene == gene)
        settle(predicted, until)
        values = prediction.get_gene_values(gene)[inside]
        n, _, mean, median, _ = rows(predicted)["Stroma"]
        assert (n, mean) == (str(inside.sum()), f"{values.mean():.2f}")
        assert median == f"{np.median(values):.2f}"
    layer = predicted.model.objects[-1].layer
    layer.selected_data = {len(layer.data) - 1}
    layer.remove_selected()
    until(lambda: "Stroma" not in rows(predicted))


def test_names_of_regions_do_not_meet():
    """Of regions in one another, beside one another, and on a canvas that is too small for all."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    radii = np.array([100.0, 70.0, 40.0, 8.0, 8.0])
    middles = np.array([[0.0, 0], [0, 0], [0, 0], [-60, 50], [-60, 55]])
    sizes = np.array([[16.0, 60], [16, 60], [16, 60], [16, 60], [0, 0]])
    for shrink, n_shown in ((1.0, 4), (0.25, 2)):
        outlines = [shrink * (m + r * circle) for m, r in zip(middles, radii, strict=True)]
        places = place_names(outlines, shrink * middles, sizes)
        assert np.isnan(places[4]).all()  # without a name
        shown = places[np.isfinite(places[:, 0])]
        assert len(shown) == n_shown and np.isfinite(places[0]).all()  # the largest at least
        for first, second in combinations(shown, 2):
            assert (np.abs(first - second) >= sizes[0]).any()
        if shrink == 1:
            assert (places[2] == 0).all()  # the innermost in its middle, the others in their rings
            assert 70 < np.abs(places[0, 0]) < 100 and 40 < np.abs(places[1, 0]) < 70

    rng = np.random.default_rng(3)  # many, of which each is compared with those near it
    middles, sizes = rng.uniform(0, 400, (200, 2)), rng.uniform((10, 20), (20, 90), (200, 2))
    places = place_names([m + 6 * circle for m in middles], middles, sizes)
    shown = np.isfinite(places[:, 0])
    assert 20 < shown.sum() < 200
    for first, second in combinations(np.flatnonzero(shown), 2):
        apart = np.abs(places[first] - places[second]) - (sizes[first] + sizes[second]) / 2
        assert apart.max() > 1.99
    for hidden in np.flatnonzero(~shown):  # no room at its middle
        apart = np.abs(middles[hidden] - places[shown]) - (sizes[hidden] + sizes[shown]) / 2
        assert apart.max(axis=1).min() < 2


def test_rename_color_and_move(predicted: RegionsWidget, panel: PredictWidget, until):
    tree, layer = predicted.tree, predicted.model.objects[0].layer
    layers, halos = panel.session.viewer.layers, panel.name_halos

    def edged() -> set[str]:
        """The names that have a dark edge."""
        halo = halos.halo_of(layer)
        return set(halo.features["label"]) if halo is not None and halo.visible else set()

    assert predicted.job_row.status_label.isHidden()  # nothing is said, so no room is taken
    until(lambda: edged() == {"A (Tumor)", "Tumor", "S (Stroma)"})
    halo = halos.halo_of(layer)
    assert layers.index(halo) + 1 == layers.index(layer)
    assert not panel.session.layers.is_listed(halo)
    copies = halo.data[halo.features["label"] == "S (Stroma)"]
    np.testing.assert_allclose(copies.mean(axis=0), layer.data[-1].mean(axis=0))
    spread = np.ptp(copies, axis=0)
    at = halo.data[(halo.features["label"] == "A (Tumor)") & (halo.features["color"] == "white")]
    assert len(at) == 1 and 300 < at[0, 0] < 400  # its middle lies in its hole
    assert layer.text.color(layer.features)[0, 3] == 0 and layer.text.color.default[3] == 1
    panel.session.viewer.scene.camera.zoom *= 2  # as wide on the screen as before
    until(
        lambda: np.allclose(
            np.ptp(halo.data[halo.features["label"] == "Tumor"], axis=0), spread / 2
        )
    )
    layer.text.visible = False
    until(lambda: not edged())
    layer.text.visible = True
    tree.topLevelItem(1).setText(0, "Tumor")  # as an edited cell: joins the other class
    until(lambda: list(rows(predicted)) == ["Tumor", "A", "Tumor #2", "S"])
    np.testing.assert_allclose(layer.edge_color[-1][:3], [200 / 255, 0, 0], atol=5e-3)
    assert list(layer.features["classification"]) == ["Tumor"] * 4
    edge = tree.topLevelItem(0).child(2)
    number = tree.visualItemRect(edge).center()
    number.setX(tree.header().sectionViewportPosition(3) + 5)
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=number)
    QTest.mouseDClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=number)  # edits the name
    (editor,) = [e for e in tree.viewport().findChildren(QLineEdit) if e.text() == "S"]
    QTest.keyClicks(editor, "Edge")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    until(lambda: "Edge" in rows(predicted))
    assert list(layer.features["label"]) == ["A (Tumor)", "", "Tumor", "Edge (Tumor)"]
    until(lambda: edged() == {"A (Tumor)", "Tumor", "Edge (Tumor)"})
    tree.topLevelItem(0).child(2).setSelected(True)
    QTest.keyClick(tree, Qt.Key.Key_Delete)
    until(lambda: "Edge" not in rows(predicted))
    QTest.mouseClick(predicted.undo_buttons.undo_button, Qt.MouseButton.LeftButton)
    until(lambda: "Edge" in rows(predicted))
    assert list(layer.features["label"]) == ["A (Tumor)", "", "Tumor", "Edge (Tumor)"]


def test_drawn_classes_are_objects_and_no_holes(panel: PredictWidget, regions, until):
    """New, a shape, New, a shape inside: two classes; one of the same class inside is a hole."""
    session = panel.session
    regions.new_button.click()
    layer = session.viewer.layers.selection.active
    assert isinstance(layer, Shapes) and layer.mode == "add_polygon_lasso"

    def add(x0, y0, x1, y1):
        layer.add_polygons([swap_xy(np.array(ring(x0, y0, x1, y1)[:-1], float))])

    add(300, 300, 900, 900)
    until(lambda: list(rows(regions)) == ["Region 1"])
    assert layer.mode == "pan_zoom"  # the next click begins no shape
    assert list(layer.text.values) == ["Region 1"]  # its name is on the slide
    regions.new_button.click()
    add(400, 400, 500, 500)
    until(lambda: list(rows(regions)) == ["Region 1", "Region 2"])
    assert regions.model.groups[0].color != regions.model.groups[1].color
    assert regions.model.objects[0].region.geometry.area == 600**2
    assert region_from_layer(layer, session.slide).area == pytest.approx(600**2)
    regions.tree.topLevelItem(0).setSelected(True)
    regions.add_button.click()
    add(600, 600, 800, 800)
    until(lambda: regions.model.objects[0].region.geometry.area == 600**2 - 200**2)
    assert list(rows(regions)) == ["Region 1", "Region 2"]
    assert session.settings.target_mode is TargetMode.REGION
    with session.message.report_errors():
        add_tissue_layer(session)  # an outline that is no region
    settle(regions, until)
    assert list(rows(regions)) == ["Region 1", "Region 2"]


def test_compare_marks_genes_and_says_one_patient(predicted: RegionsWidget, qtbot, until):
    chosen, session = predicted.comparison_box, predicted.session
    assert (chosen.a_combo.currentText(), chosen.b_combo.currentText()) == ("Tumor", "Stroma")
    qtbot.mouseClick(chosen.compare_button, Qt.MouseButton.LeftButton)
    until(lambda: chosen.result is not None and not chosen.job_row.busy)
    compared = chosen.result.predicted
    symbols = compared.comparison.symbols
    assert symbols == session.overlays[-1].prediction.panel.symbols
    prediction = session.overlays[-1].prediction
    for gene in symbols[:2]:  # all genes are decoded, also those that were not shown
        column = symbols.index(gene)
        of_a, of_b = (
            compared.values[inside, column].mean() for inside in (compared.in_a, compared.in_b)
        )
        difference = compared.comparison.difference[column]
        assert difference == pytest.approx(of_a - of_b, abs=1e-5)
    assert "one patient" in chosen.job_row.status_label.text()
    assert prediction.predicted_mask.sum() >= compared.comparison.n_a + compared.comparison.n_b

    position = chosen.volcano.dot_positions()
    other = next(i for i, s in enumerate(symbols) if s != session.gene)
    x, y = np.round(position[other]).astype(int).tolist()
    qtbot.mouseClick(chosen.volcano, Qt.MouseButton.LeftButton, pos=QPoint(x, y))
    assert session.gene != "ERBB2" and session.gene in symbols
    session.set_gene("CD74")
    table = chosen.table
    assert table.table_model.symbol_at(table.currentIndex().row()) == "CD74"

    layer = predicted.model.objects[0].layer
    layer.selected_data = {len(layer.data) - 1}
    layer.remove_selected()
    until(lambda: not chosen.stale_label.isHidden())


def test_compare_with_the_rest_and_nothing_predicted(
    panel: PredictWidget, regions: RegionsWidget, until, qupath_file
):
    panel.session.viewer.open(qupath_file, plugin="napari-dkan")
    until(lambda: len(regions.model.groups) == 4)
    chosen = regions.comparison_box
    chosen.compare_button.click()
    until(lambda: not chosen.job_row.busy)
    assert "Nothing is predicted" in chosen.job_row.status_label.text()
    panel.session.change_settings(tissue_only=False)
    regions.predict_button.click()
    until(lambda: bool(panel.session.overlays) and not panel.prediction_jobs.busy)
    settle(regions, until)
    chosen.b_combo.setCurrentText(REST)
    chosen.compare_button.click()
    until(lambda: chosen.result is not None and not chosen.job_row.busy)
    compared = chosen.result.predicted
    assert (compared.in_a | compared.in_b).all() and compared.comparison.n_b > 0
    chosen.b_combo.setCurrentText("Tumor")
    chosen.compare_button.click()
    assert "the same" in chosen.job_row.status_label.text()
    chosen.b_combo.setCurrentText(REST)
    chosen.of_combo.setCurrentText(HALLMARK)  # the small panel has too few genes
    chosen.compare_button.click()
    until(lambda: not chosen.job_row.busy)
    assert "gene sets" in chosen.job_row.status_label.text()
    assert chosen.of_combo.itemText(0) == GENES


def test_export_comes_back_from_qupath(
    predicted: RegionsWidget, qtbot, until, tmp_path, monkeypatch
):
    """With the mouse alone: the menu of the button, and the dialog."""
    target = tmp_path / "out.geojson"
    asked = "napari_dkan.viewer.panels.regions.regions_widget.QFileDialog.getSaveFileName"
    monkeypatch.setattr(asked, lambda *a, **k: (str(target), ""))
    menu = predicted.export_button.menu()

    def choose():
        action = menu.actions()[0]
        qtbot.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())

    QTimer.singleShot(300, choose)
    qtbot.mouseClick(predicted.export_button, Qt.MouseButton.LeftButton)
    until(lambda: "written" in predicted.job_row.status_label.text())
    features = json.loads(target.read_text())["features"]
    assert len(features) == 3
    first = features[0]["properties"]
    assert first["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    assert (first["objectType"], first["name"]) == ("annotation", "A")
    hole = box(300, 300, 800, 800).difference(box(400, 400, 600, 600))
    assert shape(features[0]["geometry"]).symmetric_difference(hole).area < 1
    table = predicted.model.table
    row = [g.name for g in table.groups].index("A")
    gene = predicted.session.gene
    found = first["measurements"]
    assert found[f"{gene} predicted mean"] == pytest.approx(table.predicted.mean[row, 0], abs=1e-4)
    assert found["Tiles"] == table.predicted.n_tiles[row]
    again = read_named_regions(target)
    assert [r.classification for r in again] == ["Tumor", "Tumor", "Stroma"]

    predicted.export(tmp_path / "out.csv", all_genes=True)
    until(lambda: (tmp_path / "out.csv").exists())
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [line["class"] for line in lines] == ["Tumor", "Tumor", "Stroma"]
    assert "CD74 predicted median" in lines[0]
    record = json.loads((tmp_path / "out.csv.json").read_text())
    assert record["checkpoint_sha256"] == predicted.session.checkpoint.sha256


def test_measured_section_stands_beside(
    panel: PredictWidget,
    regions: RegionsWidget,
    quality_widget,
    measured_file,
    qupath_file,
    until,
    tmp_path,
    monkeypatch,
):
    panel.session.viewer.open(qupath_file, plugin="napari-dkan")
    quality_widget.quality.load([measured_file])
    until(lambda: quality_widget.metrics.summary is not None)
    until(lambda: len(regions.model.groups) == 4)
    panel.session.change_settings(tissue_only=False)
    regions.predict_button.click()
    until(lambda: bool(panel.session.overlays) and not panel.prediction_jobs.busy)
    settle(regions, until)
    comparison = quality_widget.quality.model.comparison
    x, y = comparison.spots.xy.T
    inside = (x > 850) & (x < 1300) & (y > 300) & (y < 1300)
    gene = panel.session.gene
    values = comparison.measured[inside, comparison.panel.row(gene)]
    assert rows(regions)["Stroma"][5:7] == [str(inside.sum()), f"{values.mean():.2f}"]
    chosen = regions.comparison_box
    chosen.compare_button.click()
    until(lambda: chosen.result is not None and not chosen.job_row.busy)
    measured = chosen.result.measured
    assert measured is not None and measured.comparison.n_b == inside.sum()
    assert "median counts" in chosen.job_row.status_label.text()
    assert len(chosen.table.table_model.table_data.columns) == 6

    sets = tmp_path / "mine.gmt"
    sets.write_text("TWO\tx\tERBB2\tCD74\n")
    monkeypatch.setattr("napari_dkan.quality.gene_sets.MIN_PANEL_GENES", 2)
    asked = "napari_dkan.viewer.panels.regions.comparison_box.QFileDialog.getOpenFileName"
    monkeypatch.setattr(asked, lambda *a, **k: (str(sets), ""))
    chosen.of_combo.activated.emit(chosen.of_combo.findText(BROWSE))
    before = chosen.result
    chosen.compare_button.click()
    until(lambda: chosen.result is not before and not chosen.job_row.busy)
    layers, section = panel.session.viewer.layers, quality_widget.quality.model.section
    assert section.layer.visible
    assert chosen.table.table_model.headerData(0, Qt.Orientation.Horizontal) == "Gene set"
    chosen.show_gene("TWO")
    shown = [x for x in layers if x.visible and "score" in x.name]
    assert len(shown) == 1 and not section.layer.visible  # no two quantities on one another
    assert not panel.session.overlays[-1].layer.visible
    for is_smooth in (True, False):  # as the maps of genes, at once
        assert (shown[0].factor > 1) is is_smooth
        panel.gene_box.smooth_checkbox.click()
    panel.session.step_gene(1)
    assert shown[0] not in layers and section.layer.visible
    assert panel.session.overlays[-1].layer.visible

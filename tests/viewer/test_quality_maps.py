"""Gene sets, domains and a second checkpoint: results, and their maps side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit
from shapely.geometry import Point

from napari_dkan.viewer.layers.domain_legend import CHIP_PREFIX
from napari_dkan.viewer.layers.region_objects import DOMAINS_KEY
from napari_dkan.viewer.panels.quality.boxes.domains_job import domain_regions
from napari_dkan.viewer.panels.quality.data.quality_model import MapLayout
from napari_dkan.viewer.panels.quality.maps.value_maps import (
    VALUE_MAPS_LEGEND,
    MapGeometry,
    ValueMap,
)
from napari_dkan.viewer.session.viewer_settings import TargetMode

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget


def test_gene_sets_are_scored_and_displayed_side_by_side(
    compared: QualityWidget, tmp_path, until, monkeypatch
):
    monkeypatch.setattr("napari_dkan.quality.gene_sets.MIN_PANEL_GENES", 2)
    box, viewer = compared.gene_sets_box, compared.session.viewer
    file = tmp_path / "bad.gmt"
    file.write_bytes(b"\xff\xfe\x00nothing")
    box.open_gmt(file)
    until(lambda: not box.job_row.busy)
    assert "bad.gmt" in box.job_row.status_label.text() and box.score_button.isEnabled()

    file = tmp_path / "mine.gmt"
    file.write_text("TWO\tx\tERBB2\tCD74\nFEW\tx\tERBB2\tABC\n")
    before = [m for m in viewer.layers if m.visible]
    box.open_gmt(file)
    until(lambda: not box.job_row.busy)
    assert box.table.table_model.rowCount() == 1, box.job_row.status_label.text()
    assert "FEW: 1 of its 2 genes" in box.job_row.status_label.toolTip()
    box.table.selectRow(0)
    assert [m.name for m in compared.value_maps.layers] == [
        "TWO measured score",
        "TWO predicted score",
    ]
    assert viewer.canvas.grid.enabled and compared.value_maps_box.isVisibleTo(compared)
    compared.value_maps_box.remove_button.click()
    assert not viewer.canvas.grid.enabled and not compared.value_maps.layers
    assert [m for m in viewer.layers if m.visible] == before


def check_names_colours_genes_and_files(compared: QualityWidget, tmp_path, until):
    """By the mouse: a name, a gene; then colour, regions and a file."""
    box, session = compared.domains_box, compared.session
    table, layers = box.table, box._layers
    chips = {k: v for k, v in session.viewer.canvas.overlays.items() if k.startswith(CHIP_PREFIX)}
    assert [c.text for c in chips.values() if c.visible] == table.names
    table.show()
    first = table.topLevelItem(0)
    place = table.visualItemRect(first).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    editor = table.findChild(QLineEdit)
    QTest.keyClicks(editor, "Nest")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    until(lambda: table.names[0] == "Nest")
    table.set_color(1, "#123456")
    assert table.names[0] == chips[f"{CHIP_PREFIX}1"].text == "Nest"
    for layer in layers:
        assert layer.features["domain"].iloc[1] == "Nest"
        np.testing.assert_allclose(layer.colormap.color_dict[1][:3], [18 / 255, 52 / 255, 86 / 255])
    first.setExpanded(True)
    gene = first.child(0).text(0)
    assert gene == box.result.genes.top_genes(1, 1)[0][0]
    QTest.mouseClick(
        table.viewport(),
        Qt.MouseButton.LeftButton,
        pos=table.visualItemRect(first.child(0)).center(),
    )
    assert session.gene == gene and not any(layer.visible for layer in layers)
    assert not any(chip.visible for chip in chips.values())

    box.save(tmp_path / "domains.csv", "genes")
    assert "1,Nest," in (tmp_path / "domains.csv").read_text()
    result = box.result
    regions = domain_regions(result, table.names, table.colors)
    assert [r.classification for r in regions] == table.names[: len(regions)]
    owner = [[r.geometry.covers(Point(xy)) for r in regions].index(True) + 1 for xy in result.xy]
    assert owner == result.predicted.tolist() and regions[0].color == (18, 52, 86)
    box.make_regions()
    (made,) = [x for x in session.viewer.layers if DOMAINS_KEY in x.metadata]
    assert set(made.features["classification"]) == {r.classification for r in regions}
    assert sum(map(bool, made.features["label"])) == len(regions)  # one name each
    session.viewer.layers.remove(made)


def test_domains_of_spots_and_then_of_a_tile_map(
    compared: QualityWidget, panel: PredictWidget, until, tmp_path
):
    box = compared.domains_box
    box.find_button.click()
    until(lambda: not box.job_row.busy)
    assert (
        "in 49 predicted spots" in box.job_row.status_label.text()
        and "(ARI)" in box.job_row.status_label.text()
    )
    predicted, measured = compared.value_maps.layers
    assert predicted.data.shape == measured.data.shape and measured.data.max() > 0
    check_names_colours_genes_and_files(compared, tmp_path, until)
    panel.target_box.mode_buttons[TargetMode.TISSUE].click()
    panel.target_box.start_prediction()
    until(lambda: not panel.prediction_jobs.busy)
    box.find_button.click()
    until(lambda: not box.job_row.busy)
    assert "predicted tiles" in box.job_row.status_label.text(), box.job_row.status_label.text()
    tiles, overlay = compared.value_maps.layers[0], compared.session.overlays[0]
    assert tiles.data.shape == overlay.layer.tiles.shape
    np.testing.assert_allclose(tiles.scale, overlay.layer.tile_scale)
    np.testing.assert_allclose(tiles.translate, overlay.layer.tile_translate)
    assert (tiles.data > 0).sum() == overlay.prediction.predicted_mask.sum()

    # They belong to their section.
    quality, section = compared.quality, compared.quality.model.section
    chips = [v for k, v in box._model.session.viewer.canvas.overlays.items() if CHIP_PREFIX in k]
    assert {chip.position for chip in chips if chip.visible} == {"top_left"}
    compared.measured_box.map_layout_box.layout_buttons[MapLayout.STACKED].click()
    assert not any(v.visible for v in [*chips, *box._layers])  # the measured map is asked for
    box.table.domain_selected.emit()
    assert compared.value_maps.is_side_by_side and all(layer.visible for layer in box._layers)
    compared.value_maps_box.side_by_side_checkbox.click()  # the overview is at the left
    assert {chip.position for chip in chips if chip.visible} == {"top_right"}
    quality.choose_section(None)
    assert not box.table.isVisibleTo(box) and not compared.value_maps.is_side_by_side
    assert not any(v.visible for v in [*chips, *box._layers])
    assert f"domains of {section.name} are kept" in box.job_row.status_label.text()
    quality.choose_section(section)
    assert box.table.isVisibleTo(box) and "predicted tiles" in box.job_row.status_label.text()
    until(lambda: not quality.busy)

    # Maps of tiles are smooth or blocks as the others are, at once.
    grid, slide = overlay.prediction.target.grid, compared.session.slide
    score = ValueMap("score", np.arange(len(grid), dtype=float), (0.0, 9.0), "magma")
    compared.value_maps.show(MapGeometry(slide, grid=grid), [score], "A score")
    (layer,) = compared.value_maps.layers
    legend = compared.session.viewer.canvas.overlays[VALUE_MAPS_LEGEND]
    for is_smooth in (True, False):
        assert (layer.factor > 1) is is_smooth is ("smoothed" in legend.text)
        panel.gene_box.smooth_checkbox.click()


def test_two_checkpoints_are_compared(compared: QualityWidget, rival_file, until):
    box, session = compared.model_comparison_box, compared.session
    box.choose_checkpoint(rival_file)
    box.compare()
    until(lambda: not box.job_row.busy)
    assert "the measured data prefers" in box.job_row.status_label.text(), (
        box.job_row.status_label.text()
    )
    values = [m.features["value"].to_numpy() for m in compared.value_maps.layers]
    measured, first, second, difference = values
    np.testing.assert_allclose(difference, second - first, atol=1e-6)
    column = compared.quality.model.comparison.panel.row(session.gene)
    np.testing.assert_array_equal(measured, compared.quality.model.comparison.measured[:, column])
    assert box.table.table_model.rowCount() == 6  # a gene need not be measured to be compared
    session.set_gene("MALAT1")
    names = [m.name for m in compared.value_maps.layers]
    assert len(names) == 3 and all(name.startswith("MALAT1") for name in names)
    compared.measured_box.map_layout_box.layout_buttons[MapLayout.SIDE_BY_SIDE].click()
    assert not compared.value_maps.is_side_by_side  # the canvas has one grid

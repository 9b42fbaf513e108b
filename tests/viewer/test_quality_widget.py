"""The quality-control panel: load, compare, search, choose, report, close."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QGuiApplication

from napari_dkan.inference.map_colors import sample_colors
from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget


def displayed_genes(widget) -> list[str]:
    table = widget.gene_metrics_box.table.table_model
    return [table.symbol_at(row) for row in range(table.rowCount())]


def test_opens_the_predict_panel_as_a_tab(
    make_napari_viewer, monkeypatch, tiny_checkpoint_file, until
):
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.predict.model_box.list_bundled_checkpoints",
        lambda: [tiny_checkpoint_file],
    )
    viewer = make_napari_viewer()
    _, made = viewer.window.add_plugin_dock_widget("napari-dkan", "DKAN: quality control")
    until(lambda: made.session.checkpoint is not None)
    opened = [w for w in viewer.window.dock_widgets.values() if isinstance(w, PredictWidget)]
    assert len(opened) == 1 and opened[0].session is made.session
    made.shut_down()
    made.quality.close()
    opened[0].shut_down()


def test_loaded_section_is_compared(compared: QualityWidget, qtbot, tmp_path):
    widget, session = compared, compared.session
    summary = widget.metrics.summary
    assert (summary.n_spots, summary.n_genes) == (49, 5)
    assert widget.measured_box.section_combo.currentText() == "D1"
    assert widget.measured_box.registration_label.text().startswith("Registered by the files; ")
    verdict = widget.summary_box.verdict_label.text()
    assert verdict.startswith("Depth-partial PCC ") and "depth alone" in verdict
    assert "depth alone" in widget.summary_box.metrics_label.text()
    assert widget.summary_box.shallow_label.isHidden()  # this checkpoint records no depth
    shown = widget.gene_metrics_box.table.table_model.table_data.columns[0]
    for row, gene in enumerate(widget.metrics.comparison.metrics_per_gene):
        assert (shown.format_value(row) == "cannot be judged") is not gene.is_judged
    assert not widget.summary_box.trained_label.isVisibleTo(widget)
    assert len(widget.summary_box.histogram.pcc) == 5
    assert sorted(displayed_genes(widget)) == ["CD74", "COL1A1", "ERBB2", "GATA3", "KRT8"]
    assert "MALAT1" in widget.gene_metrics_box.missing_label.text()
    read = widget.measured_box.account_label.text().splitlines()
    assert read[:3] == ["read: D1.h5ad", "49 spots read", "6 genes read"]
    assert read[3] == "pixel size: 0.7 um (OME metadata)" and read[4] == "image: drawn.ome.tif"

    table = widget.gene_metrics_box.table
    table.selectRow(table.table_model.find_row("CD74"))
    assert session.gene == "CD74"
    session.set_gene("KRT8")
    assert table.table_model.symbol_at(table.currentIndex().row()) == "KRT8"
    qtbot.keyClicks(widget.gene_metrics_box.search_field, "keratin")
    assert displayed_genes(widget) == ["KRT8"]
    widget.gene_metrics_box.search_field.clear()
    assert len(displayed_genes(widget)) == 5

    file = tmp_path / "genes.csv"
    widget.gene_metrics_box.save_csv(file)
    rows = list(csv.reader(file.open()))
    assert rows[0][:4] == ["gene", "partial", "partial_low", "partial_high"] and len(rows) == 6
    assert {"pcc", "low", "high", "ceiling"} < set(rows[0]) and rows[0][-1] == "judged"
    pcc = {f.symbol: f.partial for f in widget.quality.model.comparison.metrics_per_gene}
    assert [float(r[1]) for r in rows[1:]] == pytest.approx([pcc[r[0]] for r in rows[1:]], rel=1e-4)
    widget.gene_metrics_box.copy_button.click()
    assert QGuiApplication.clipboard().text().startswith("gene\tpartial\tpartial_low")


def test_dots_and_worst_regions_show_spots(compared: QualityWidget, qtbot, until):
    widget, quality = compared, compared.quality
    scatter, comparison = widget.scatter_box.scatter, quality.model.comparison
    scatter.resize(300, 240)
    position = QPointF(*scatter.dot_positions()[11]).toPoint()
    qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=position)
    distance = np.hypot(*(scatter.dot_positions() - [position.x(), position.y()]).T)
    assert quality.model.spot_row is not None and distance[quality.model.spot_row] == distance.min()
    quality.model.choose_spot(20)
    column = comparison.panel.row(widget.session.gene)
    text = widget.scatter_box.spot_label.text()
    assert f"measured {comparison.measured[20, column]:.2f}" in text
    assert f"predicted {comparison.predicted[20, column]:.2f}" in text
    widget.session.set_gene("MALAT1")  # predicted, not measured
    assert widget.scatter_box.spot_label.text() == "MALAT1 is not measured in this section."
    assert not widget.gene_metrics_box.table.selectionModel().hasSelection()

    until(lambda: bool(widget.metrics.worst_regions))
    region, viewer = widget.metrics.worst_regions[0], widget.session.viewer
    widget.summary_box.worst_regions_label.linkActivated.emit("0")
    layer = widget.summary_box.outline.layer
    assert layer in viewer.layers and len(layer.data) == len(region.spot_rows)
    centre = viewer.scene.camera.center[-2:]
    np.testing.assert_allclose(centre, (region.y * 0.7, region.x * 0.7), rtol=1e-5)


def test_early_figures_training_slide_warning_report_and_removal(
    quality_widget: QualityWidget, measured_file, until, monkeypatch, tmp_path
):
    widget, session = quality_widget, quality_widget.session
    worker = "napari_dkan.viewer.panels.quality.data.comparison_worker"
    monkeypatch.setattr(f"{worker}.FIRST_SAMPLE", 12)
    monkeypatch.setattr(f"{worker}.MIN_REMAINING_S", 0.0)
    model, box, early = widget.quality.model, widget.summary_box, []

    def read_early_figures() -> None:
        assert model.comparison is None and model.early is not None
        assert model.early.comparison.summary.n_spots in (12, 24, 48)
        assert box.isVisibleTo(widget) and box.trained_label.isVisibleTo(widget)
        assert not widget.gene_metrics_box.isVisibleTo(widget)  # whose table can be saved
        assert not widget.report_box.report_button.isEnabled()
        early.append((box.early_label.text(), box.verdict_label.text(), model.early.comparison))

    model.early_changed.connect(read_early_figures)
    prints = {"D1": session.slide.slide.fingerprint()}
    card = {"title": "Seen", "training_data": {"slide_fingerprints": prints}}
    session.set_checkpoint(replace(session.checkpoint, card=card))
    widget.quality.load([measured_file])
    until(lambda: widget.metrics.summary is not None)
    assert box.trained_label.isVisibleTo(widget)
    assert "no measure of quality" in box.trained_label.text()
    assert early and not box.early_label.isVisibleTo(widget)
    label, verdict, sample = early[0]
    count = len(sample.spots)
    assert f"from {count} of 49 spots so far" in label and f"{count} spots" in verdict
    assert "49 spots" in box.verdict_label.text() and model.comparison is not None
    names = list(model.comparison.spots.names)
    rows = [names.index(name) for name in sample.spots.names]
    np.testing.assert_array_equal(sample.measured, model.comparison.measured[rows])
    np.testing.assert_array_equal(sample.predicted, model.comparison.predicted[rows])
    assert rows != list(range(count))  # drawn from all over the section

    opened = []
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.quality.boxes.report_box.QDesktopServices.openUrl", opened.append
    )
    page = tmp_path / "D1.html"
    session.change_settings(colormap="cividis")
    widget.report_box.write_report(page)
    until(lambda: not widget.report_box.job_row.busy)
    assert page.is_file(), widget.report_box.job_row.status_label.text()
    assert sample_colors("cividis", 64)[0] in page.read_text(encoding="utf-8")  # as the window
    widget.report_box.open_button.click()
    assert opened[0].toLocalFile() == str(page)

    widget.quality.remove_section(widget.quality.model.section)
    assert widget.metrics.summary is None and not displayed_genes(widget)
    assert (
        not widget.gene_metrics_box.isVisibleTo(widget)
        and not widget.report_box.report_button.isEnabled()
    )


def test_closing_cancels_all_jobs(compared: QualityWidget, rival_file, until):
    widget = compared
    widget.domains_box.find_button.click()
    widget.gene_sets_box.score()
    widget.model_comparison_box.choose_checkpoint(rival_file)
    widget.model_comparison_box.compare()
    widget.shut_down()
    boxes = widget.domains_box, widget.gene_sets_box, widget.model_comparison_box
    assert not widget.metrics.busy and not any(box.job_row.busy for box in boxes)
    until(lambda: widget.metrics.wait(0) and all(box.job_row.wait(0) for box in boxes))
    assert not widget.value_maps.layers and not widget.session.viewer.canvas.grid.enabled
    widget.session.step_gene(1)  # the panel is disconnected

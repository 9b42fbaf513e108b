"""What a person does with genes, with the mouse: limits on the histogram, gene set scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt

from napari_dkan.viewer.layers.canvas_legend import GENE_LEGEND
from napari_dkan.viewer.session.viewer_settings import ContrastLimits
from napari_dkan.viewer.tools.similar_tiles import SIMILAR_LEGEND

from .prediction_steps import draw, everything, finish, square

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


def drag(qtbot, plot, start: float, end: float) -> None:
    """Drag from x to x on the middle of a widget."""
    y = plot.height() // 2
    qtbot.mousePress(plot, Qt.MouseButton.LeftButton, pos=QPoint(round(start), y))
    for share in (0.5, 1.0):
        qtbot.mouseMove(plot, QPoint(round(start + share * (end - start)), y))
    qtbot.mouseRelease(plot, Qt.MouseButton.LeftButton, pos=QPoint(round(end), y))


def press_smooth(panel: PredictWidget, qtbot) -> None:
    """Between smooth maps and blocks."""
    panel.display_section.expand()
    box = panel.gene_box.smooth_checkbox
    qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))


def find_map(panel: PredictWidget):
    return next(o for o in panel.session.overlays if not o.from_clicks)


@pytest.fixture
def mapped(panel: PredictWidget, until):
    """A finished map of the slide in a shown window."""
    panel.session.viewer.window._qt_window.show()
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    return panel


def test_genes_by_hand(mapped: PredictWidget, qtbot, until, middle, tmp_path, monkeypatch) -> None:
    """One window for all: a window takes longer than the steps in it."""
    walk_histogram(mapped, qtbot, until, middle)
    walk_gene_set(mapped, qtbot, until, middle, tmp_path, monkeypatch)
    walk_colors(mapped, qtbot, until, middle)
    walk_side_by_side(mapped, qtbot, until)
    walk_find(mapped, qtbot, until)


def walk_histogram(panel: PredictWidget, qtbot, until, middle) -> None:
    session, box = panel.session, panel.gene_box.histogram_box
    plot, overlay = box.plot, session.overlays[-1]
    session.set_gene("ERBB2")
    until(lambda: plot.isVisible() and not box.busy)
    n_tiles = int(overlay.prediction.predicted_mask.sum())
    assert plot._content.title.startswith(f"ERBB2: {n_tiles} tiles")
    assert plot._content.counts.sum() == n_tiles

    # The clicked tile and the regions are marked.
    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None and not box.busy)
    value = float(session.spot.get_gene_values("ERBB2")[-1])
    assert plot._content.tile == pytest.approx(value)
    assert "this spot" in plot.describe(plot.x_of(value))
    assert len(plot._content.marks) == 1 and f"{n_tiles} tiles" in plot._content.marks[0].text
    regions = panel.target_box.regions_layer()
    regions.add_polygons([np.array(square(*middle, 200))[:, ::-1]])
    regions.features = regions.features.assign(classification=["", "Nest"])
    until(lambda: len(plot._content.marks) == 2)
    inside = np.abs(overlay.prediction.target.spots.xy - middle).max(axis=1) < 200
    nest = overlay.prediction.get_gene_values("ERBB2")[inside]
    assert plot._content.marks[1].middle == pytest.approx(np.median(nest))

    # A dragged limit is drawn while the button is held, and is this gene's alone.
    low, high = before = panel.display.contrast_limits()
    middle_x = (plot.x_of(low) + plot.x_of(high)) / 2
    drag(qtbot, plot, plot.x_of(high), middle_x)
    chosen = session.settings.contrast_limits
    assert chosen.fixed is None and set(chosen.by_gene) == {"ERBB2"}
    assert chosen.by_gene["ERBB2"] == pytest.approx((low, (low + high) / 2), abs=(high - low) / 50)
    assert tuple(overlay.layer.contrast_limits) == chosen.by_gene["ERBB2"]
    assert "set" in panel.gene_box.range_label.text()
    session.set_gene("GATA3")
    assert "set" not in panel.gene_box.range_label.text()
    assert overlay.layer.contrast_limits[1] != chosen.by_gene["ERBB2"][1]
    session.set_gene("ERBB2")
    assert tuple(overlay.layer.contrast_limits) == chosen.by_gene["ERBB2"]
    until(lambda: not box.busy)

    # The limits never cross; the keys move one of them; a double-click returns to percentiles.
    drag(qtbot, plot, plot.x_of(plot.limits[0]), plot.width() - 9)
    assert plot.limits[0] < plot.limits[1]
    lower = plot.limits[0]
    plot.setFocus()
    qtbot.keyClick(plot, Qt.Key.Key_Down)
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert (
        plot.limits[0] < lower and plot.limits == session.settings.contrast_limits.by_gene["ERBB2"]
    )
    assert session.gene == "ERBB2"
    qtbot.mouseDClick(plot, Qt.MouseButton.LeftButton, pos=QPoint(60, 30))
    assert not session.settings.contrast_limits.by_gene
    assert panel.display.contrast_limits() == before

    # Where limits are fixed, a drag fixes others for all genes.
    panel.gene_box.toggle_fixed_limits()
    drag(qtbot, plot, plot.x_of(plot.limits[1]), plot.x_of(plot.limits[0]) + 40)
    fixed = session.settings.contrast_limits.fixed
    assert fixed is not None and fixed == plot.limits and fixed != before
    panel.gene_box.toggle_fixed_limits()
    assert panel.display.contrast_limits() == before


def nest_score(prediction):
    genes = [prediction.get_gene_values(g) for g in ("GATA3", "CD74", "COL1A1", "KRT8", "MALAT1")]
    return np.mean(genes, axis=0) - prediction.get_gene_values("ERBB2")


def walk_gene_set(panel: PredictWidget, qtbot, until, middle, tmp_path, monkeypatch) -> None:
    session, box = panel.session, panel.gene_box.gene_set_box
    until(lambda: not box.busy)
    combo, overlay = box.set_combo, find_map(panel)
    qtbot.mouseClick(panel.more_section.header, Qt.MouseButton.LeftButton)
    hypoxia = combo.findText("HYPOXIA")
    assert not combo.model().item(hypoxia).isEnabled()
    assert "it takes 5" in combo.model().item(hypoxia).toolTip()

    # The sets of a file come first; a set is chosen like any entry.
    file = tmp_path / "sets.gmt"
    file.write_text("NEST\tabout\tGATA3\tCD74\tCOL1A1\tKRT8\tMALAT1\tNOTHERE\n")
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.predict.gene_set_box.QFileDialog.getOpenFileName",
        lambda *a: (str(file), ""),
    )
    combo.setFocus()
    qtbot.keyClick(combo, Qt.Key.Key_End)  # the last entry opens a file
    until(lambda: not box.busy and combo.findData("NEST") == 1)
    qtbot.keyClick(combo, Qt.Key.Key_Down)
    assert session.gene == "NEST score" == panel.gene_box.search_field.text()
    assert "NOTHERE" in box.note_label.text() and box.note_label.isVisible()
    until(lambda: not panel.gene_decode_job.busy and not panel.gene_box.histogram_box.busy)

    # Its map is the score of the genes' maps, in the legend and in the bars of the spot too.
    prediction = overlay.prediction
    score = nest_score(prediction)
    assert np.allclose(prediction.get_gene_values("NEST score"), score, atol=1e-5)
    drawn = overlay.layer.tiles[np.isfinite(overlay.layer.tiles)]
    assert np.allclose(np.sort(drawn), np.sort(score[np.isfinite(score)]), atol=1e-5)
    assert prediction.get_value_units("NEST score").startswith("mean of 5 genes minus mean of 1 ")
    assert "NEST score" in session.viewer.canvas.overlays[GENE_LEGEND].text
    bars = panel.spot_box.gene_bars
    assert next(row[0] for row in bars.rows) == "NEST score"
    bars.resize(400, bars.height())
    bars.set_rows([("NEST score", -0.001, True)])  # the name in full, and no negative zero
    assert bars.name_width() > bars.fontMetrics().horizontalAdvance("NEST score")
    assert bars.accessibleDescription() == "NEST score 0.00"
    assert "NEST score: " in panel.gene_box.histogram_box.plot._content.title

    # It is found by its name, and tiles that are predicted later have it.
    session.set_gene("GATA3")
    assert combo.currentIndex() == 0 and not box.note_label.isVisible()
    field = panel.gene_box.search_field
    field.setFocus()
    field.selectAll()
    qtbot.keyClicks(field, "nest")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    assert session.gene == "NEST score" and combo.currentIndex() == 1
    session.viewer.layers.remove(overlay.layer)
    lens = panel.lens  # shows it without a map, too
    lens.set_active(True)
    point = prediction.target.grid.centres[0]
    lens.move(*point)
    until(lambda: lens.value_at(*point) is not None)
    assert lens.value_at(*point) == pytest.approx(score[0], abs=1e-4)
    lens.set_active(False)
    panel.target_box.start_prediction()
    finish(panel, until)
    again = find_map(panel)
    assert again is not overlay
    until(lambda: not len(again.prediction.find_incomplete_columns()))
    found = again.prediction.get_gene_values("NEST score")
    assert len(found) and np.allclose(found, nest_score(again.prediction), atol=1e-5)
    session.set_gene("ERBB2")


def walk_colors(panel: PredictWidget, qtbot, until, middle) -> None:
    session, box, mix = panel.session, panel.several_genes_box, panel.color_mix
    overlay, canvas = find_map(panel), session.viewer.canvas
    was_visible = {o: o.layer.visible for o in session.overlays}

    def press():
        qtbot.mouseClick(box.colors_button, Qt.MouseButton.LeftButton)

    box.genes_field.setFocus()
    qtbot.keyClicks(box.genes_field, "her2, COL1A1")
    press()
    until(lambda: mix.layer is not None)
    assert mix.genes == ("ERBB2", "COL1A1") and not overlay.layer.visible
    prediction = overlay.prediction
    values = [prediction.get_gene_values(g) for g in mix.genes]
    shares = [
        np.clip((v - a) / (b - a), 0, 1) for v, (a, b) in zip(values, mix.limits, strict=True)
    ]
    x, y = (prediction.target.grid.cells - prediction.target.grid.first_cell).T
    size = overlay.layer.factor
    assert size > 1 and mix.layer.data.shape[:2] == overlay.layer.data.shape  # as smooth

    def colors(channel: int, factor: int):
        at_centres = slice(factor // 2, None, factor)
        return mix.layer.data[at_centres, at_centres, channel][y, x]

    def texts():
        return [o.text for o in canvas.overlays.values() if getattr(o, "text", "") and o.visible]

    assert any(t.endswith("smoothed between tiles") for t in texts())
    assert all(len(t.splitlines()) <= 3 for t in texts())  # as many as its box holds
    for factor in (size, 1):
        np.testing.assert_allclose(mix.layer.extent.world, overlay.layer.extent.world)
        assert np.abs(colors(0, factor) - 255 * shares[0]).max() <= 1  # magenta
        assert np.abs(colors(1, factor) - 255 * shares[1]).max() <= 1  # green
        press_smooth(panel, qtbot)
        assert any("smoothed" in t for t in texts()) is (factor == 1)
    assert any("ERBB2, magenta" in t for t in texts())
    assert any("COL1A1, green" in t for t in texts())
    assert not canvas.overlays[GENE_LEGEND].visible
    assert box.legend.isVisible() and len(box.legend.rows) == 2

    # A click still answers with the tile of the map, and its gene's limits count.
    row = len(prediction.target) // 2
    centre = prediction.target.grid.centres[row]
    assert panel.click_predictor._show_map_tile(tuple(centre[::-1] * session.slide.mpp))
    until(lambda: np.allclose(session.spot.target.spots.xy[-1], centre))
    session.change_settings(contrast_limits=ContrastLimits((0.0, 9.0)))
    assert mix.limits == ((0.0, 9.0), (0.0, 9.0))
    session.change_settings(contrast_limits=ContrastLimits())

    # Another list replaces the colours; a gene that is not there is named.
    box.genes_field.selectAll()
    qtbot.keyClicks(box.genes_field, "CD74, KRT8, GATA3")
    qtbot.keyClick(box.genes_field, Qt.Key.Key_Return)
    until(lambda: mix.genes == ("CD74", "KRT8", "GATA3") and len(mix.limits) == 3)
    press()
    assert mix.layer is None and {o: o.layer.visible for o in session.overlays} == was_visible
    assert canvas.overlays[GENE_LEGEND].visible and not box.legend.isVisible()
    box.genes_field.selectAll()
    qtbot.keyClicks(box.genes_field, "KRT8, NOGENE")
    press()
    assert not box.colors_button.isChecked() and "NOGENE" in panel.message_label.text()
    box.genes_field.selectAll()
    qtbot.keyClick(box.genes_field, Qt.Key.Key_Backspace)

    # Without a list the pinned genes count; a deleted layer brings the map back.
    press()
    until(lambda: mix.layer is not None)
    assert mix.genes == session.pinned[:3]
    session.viewer.layers.remove(mix.layer)
    assert overlay.layer.visible and not box.colors_button.isChecked()


def walk_side_by_side(panel: PredictWidget, qtbot, until) -> None:
    session, box = panel.session, panel.several_genes_box
    window, camera = box.grid_window, session.viewer.scene.camera
    maps, overlay = window.thumbnails, find_map(panel)
    qtbot.mouseClick(box.grid_button, Qt.MouseButton.LeftButton)
    genes = tuple(dict.fromkeys((session.gene, *session.pinned)))
    until(lambda: [m.symbol for m in maps.maps] == list(genes))
    assert maps.selected == session.gene

    # Each map has the values of its gene, and a click shows that gene on the canvas.
    cell = maps.cells()[-1]
    qtbot.mouseClick(maps, Qt.MouseButton.LeftButton, pos=cell.center().toPoint())
    assert session.gene == genes[-1] == maps.selected
    at = next(
        p
        for p in (
            cell.center() + QPointF(dx, dy) for dx in range(-60, 61, 6) for dy in range(0, 60, 6)
        )
        if (found := maps.value_at(p)) is not None and np.isfinite(found[1])
    )
    picture = maps._picture(cell)
    xy = maps.view.center() + (at - picture.center()) / maps._zoom(picture)
    centres = overlay.prediction.target.grid.centres
    nearest = np.abs(centres - [xy.x(), xy.y()]).max(axis=1).argmin()
    value = overlay.prediction.get_gene_values(genes[-1])[nearest]
    assert maps.value_at(at) == (genes[-1], pytest.approx(value))

    # Smooth or in blocks as the map is, at once; the values are those of the tiles.
    assert maps.maps[0].image.width() > maps.maps[0].values.shape[1]
    press_smooth(panel, qtbot)
    assert maps.maps[0].image.width() == maps.maps[0].values.shape[1]
    assert maps.value_at(at) == (genes[-1], pytest.approx(value))
    press_smooth(panel, qtbot)

    # The view is that of the canvas; the wheel zooms both.
    width = maps.view.width()
    camera.zoom *= 2
    assert maps.view.width() == pytest.approx(width / 2)
    maps.zoomed.emit(0.5)
    assert maps.view.width() == pytest.approx(width)
    qtbot.keyClick(maps, Qt.Key.Key_Right)
    assert session.gene == genes[0]
    session.set_pinned("KRT8", "KRT8" not in session.pinned)
    until(lambda: ("KRT8" in [m.symbol for m in maps.maps]) is ("KRT8" in session.pinned))
    session.change_settings(contrast_limits=ContrastLimits((-12.5, 9.0)))
    assert all(m.limits == (-12.5, 9.0) for m in maps.maps)
    assert maps._number_width() > maps.fontMetrics().horizontalAdvance("-12.50")
    session.change_settings(contrast_limits=ContrastLimits())
    qtbot.keyClick(maps, Qt.Key.Key_Escape)
    assert not window.isVisible() and not window.reader.symbols


def walk_find(panel: PredictWidget, qtbot, until) -> None:
    session, box, similar = panel.session, panel.find_box, panel.similar_tiles
    overlay, layers = find_map(panel), session.viewer.layers
    prediction = overlay.prediction
    panel.find_section.expand()
    session.set_gene("ERBB2")

    # Genes by the correlation of their maps; a click on a row shows the gene.
    qtbot.mouseClick(box.genes_button, Qt.MouseButton.LeftButton)
    until(lambda: box.gene_table.isVisible())
    table = box.gene_table
    n_tiles = int(prediction.predicted_mask.sum())
    others = [s for s in prediction.panel.symbols if s != "ERBB2"]
    r = {
        s: np.corrcoef(prediction.get_gene_values("ERBB2"), prediction.get_gene_values(s))[0, 1]
        for s in others
    }
    best = max(others, key=lambda s: r[s])
    model = table.table_model
    assert model.symbol_at(0) == best and model.rowCount() == len(others)
    assert model.data(model.index(0, 1)) == f"{r[best]:.2f}"
    assert model.data(model.index(0, 3)) == str(n_tiles)
    assert f"{n_tiles} predicted tiles" in box.note_label.text()
    at = table.visualRect(model.index(0, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert session.gene == best and "Maps like ERBB2" in box.note_label.text()

    # Tiles like the clicked one, as a map in place of the gene's.
    row = n_tiles // 3
    centre = prediction.target.grid.centres[row]
    assert panel.click_predictor._show_map_tile(tuple(centre[::-1] * session.slide.mpp))
    until(lambda: np.allclose(session.spot.target.spots.xy[-1], centre))
    qtbot.mouseClick(box.tiles_button, Qt.MouseButton.LeftButton)
    until(lambda: similar.result is not None)
    image, outlines = similar._layers
    tokens = prediction.tokens
    norms = np.linalg.norm(tokens, axis=1)
    cosines = tokens @ tokens[row] / (norms * norms[row])
    x, y = (prediction.target.grid.cells - prediction.target.grid.first_cell).T
    assert np.allclose(image.tiles[y, x], cosines, atol=1e-4)
    legend = session.viewer.canvas.overlays[SIMILAR_LEGEND]
    for is_smooth in (True, False):
        assert (image.factor > 1) is is_smooth is ("smoothed" in legend.text)
        press_smooth(panel, qtbot)
    expected = [i for i in np.argsort(-cosines) if i != row][: len(outlines.data)]
    listed = similar.result.grid.centres[similar.result.listed]
    assert np.allclose(cosines[expected], similar.result.cosines[similar.result.listed], atol=1e-4)
    assert np.allclose(outlines.data, listed[:, ::-1])
    assert not overlay.layer.visible and not box.gene_table.isVisible()
    assert f"of {n_tiles} predicted ones" in box.note_label.text()

    # A listed tile comes into view; another click compares with another tile.
    table = box.tile_table
    at = table.visualRect(table.table_model.index(2, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=at)
    centre_of_view = session.viewer.scene.camera.center[-2:]
    assert np.allclose(centre_of_view, listed[2, ::-1] * session.slide.mpp)
    before, other = similar.result, prediction.target.grid.centres[0]
    assert panel.click_predictor._show_map_tile(tuple(other[::-1] * session.slide.mpp))
    until(lambda: similar.result is not None and similar.result is not before)
    assert np.allclose(similar.result.at, other)

    # One layer at a time stands for the map; a second press brings it back.
    panel.color_mix.show(("ERBB2", "CD74"))
    until(lambda: panel.color_mix.layer is not None)
    assert not similar.active and not box.tiles_button.isChecked()
    qtbot.mouseClick(box.tiles_button, Qt.MouseButton.LeftButton)
    until(lambda: similar.result is not None)
    assert panel.color_mix.layer is None and not overlay.layer.visible
    qtbot.mouseClick(box.tiles_button, Qt.MouseButton.LeftButton)
    assert overlay.layer.visible and not any("like this spot" in x.name for x in layers)
    session.set_spot(None)
    qtbot.mouseClick(box.tiles_button, Qt.MouseButton.LeftButton)
    assert not box.tiles_button.isChecked() and "Click the tile first" in panel.message_label.text()

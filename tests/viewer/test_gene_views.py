"""What a person does with genes, with the mouse: limits on the histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

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


@pytest.fixture
def mapped(panel: PredictWidget, until):
    """A finished map of the slide in a shown window."""
    panel.session.viewer.window._qt_window.show()
    draw(panel, everything(panel))
    panel.target_box.start_prediction()
    finish(panel, until)
    return panel


def test_genes_by_hand(mapped: PredictWidget, qtbot, until, middle) -> None:
    walk_histogram(mapped, qtbot, until, middle)


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

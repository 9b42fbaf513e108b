"""What was asked for is in sight: folded sections, the bars of a spot, focus, plan and message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_dkan.viewer.jobs.run_times import estimate_run_seconds, format_range
from napari_dkan.viewer.layers import gene_baseline
from napari_dkan.viewer.panels.predict.spot_box import SORT_BY_VALUE
from napari_dkan.viewer.session import user_history
from napari_dkan.viewer.session.viewer_settings import TargetMode
from napari_dkan.viewer.widgets.scroll_column import FocusRing

from .prediction_steps import finish

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

LAPTOP = 1366, 768
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def shown(
    make_panel: Callable[..., PredictWidget], tiny_slide_file, until, monkeypatch
) -> PredictWidget:
    """The window of a laptop with the whole slide in view."""
    monkeypatch.setattr("napari_dkan.viewer.panels.sections.TALL_SCREEN_PX", 10_000)
    panel = make_panel(show=True)
    viewer = panel.session.viewer
    viewer.window.resize(*LAPTOP)
    viewer.open(tiny_slide_file, plugin="napari-dkan")
    viewer.reset_view()
    until(lambda: panel.session.slide.tissue is not None and not panel.prefetcher.busy)
    return panel


def press(widget: QWidget, place: QPoint | None = None) -> None:
    QTest.mouseClick(widget, LEFT, pos=place or widget.rect().center())
    QApplication.processEvents()


def choose(panel: PredictWidget, mode: TargetMode) -> None:
    button = panel.target_box.mode_buttons[mode]
    press(button, QPoint(8, button.height() // 2))


def click_slide(panel: PredictWidget, until) -> None:
    canvas = panel.session.viewer.window._qt_viewer.canvas.native
    before = panel.session.spot
    place = canvas.rect().center()
    QTest.mouseMove(canvas, place)
    press(canvas, place)
    until(lambda: panel.session.spot is not before and not panel.click_predictor.busy)


def is_in_sight(panel: PredictWidget, widget: QWidget) -> bool:
    port = panel.scroll_column.viewport()
    corner = widget.mapTo(port, QPoint(0, 0))
    return corner.y() >= 0 and corner.y() + widget.height() <= port.height()


def walk_clicks(shown: PredictWidget, until) -> None:
    header, bars = shown.sections["This spot"].header, shown.spot_box.gene_bars
    assert not shown.display_section.is_open  # on a screen that is not tall
    for theme in ("dark", "light"):
        shown.session.viewer.theme = theme
        shown.session.set_spot(None)
        click_slide(shown, until)
        assert is_in_sight(shown, header) and is_in_sight(shown, bars)
    # As many as the bundled model shows, without scrolling and with the slide's line above.
    bars.set_rows([(f"GENE{i}", 1.0, False) for i in range(15)])
    shown.scroll_column.verticalScrollBar().setValue(0)
    until(lambda: is_in_sight(shown, bars) and is_in_sight(shown, shown.sections["Slide"].header))

    # With everything open, and from the other end of the panel.
    for section in (shown.display_section, shown.more_section, shown.sections["Advanced"]):
        press(section.header)
        assert is_in_sight(shown, section.header)
    bar = shown.scroll_column.verticalScrollBar()
    for end in (bar.minimum(), bar.maximum()):
        bar.setValue(end)
        click_slide(shown, until)
        assert is_in_sight(shown, header) and is_in_sight(shown, bars)
    for section in (shown.display_section, shown.more_section, shown.sections["Advanced"]):
        press(section.header)


def walk_sections(shown: PredictWidget, qtbot, until) -> None:
    slide, gene = shown.sections["Slide"], shown.sections["Gene"]
    assert not slide.is_open and slide.summary_label.text().endswith(", 0.7 um/px")
    press(slide.change_button)
    assert slide.is_open and shown.slide_box.pixel_size_label.isVisible()
    assert shown.slide_box.pixel_size_field.isVisible()  # one press
    gene.header.setFocus()
    assert gene.header.isChecked() and gene.header.accessibleName() == "Gene: section"
    qtbot.keyClick(gene.header, Qt.Key.Key_Return)
    assert not gene.is_open and not shown.gene_box.search_field.isVisible()
    qtbot.keyClick(gene.header, Qt.Key.Key_Tab)
    assert gene.window().focusWidget().text() == "?"  # nothing that is hidden
    press(slide.header)
    assert not slide.is_open and slide.summary_label.isVisible()


def check_order(panel: PredictWidget, mean, std, said: str) -> None:
    """Check order, numbers and caption of the bars against this average."""
    session, box = panel.session, panel.spot_box
    symbols = session.spot.panel.symbols
    excess = (session.spot.values[-1] - mean) / std
    by_excess = [symbols[i] for i in np.argsort(-excess) if symbols[i] != session.gene]
    rows = box.gene_bars.rows
    assert [gene for gene, _, _ in rows] == [session.gene, *by_excess]
    assert [v for _, v, _ in rows] == [session.spot.get_gene_values(g)[-1] for g, _, _ in rows]
    np.testing.assert_allclose([box.gene_bars.excess[g] for g in symbols], excess, rtol=1e-4)
    assert said in box.units_label.text()


def walk_order(shown: PredictWidget, until, monkeypatch) -> None:
    """The whole tissue is predicted."""
    session, box = shown.session, shown.spot_box
    (overlay,) = (o for o in session.overlays if not o.from_clicks)
    tiles, network = overlay.prediction.values, session.checkpoint.network
    training = network.label_mean.numpy(), network.label_std.numpy()
    check_order(shown, *training, "the training sections")  # of so few tiles
    monkeypatch.setattr(gene_baseline, "MIN_TILES", 10)
    box.refresh()
    average = tiles.mean(axis=0), tiles.std(axis=0)
    check_order(shown, *average, f"this slide's {len(tiles)} predicted tiles (")
    # A map of a small part is not the slide, and an unfinished one neither.
    monkeypatch.setattr(gene_baseline, "MIN_TISSUE_SHARE", 1.1)
    box.refresh()
    check_order(shown, *training, "the training sections")
    monkeypatch.setattr(gene_baseline, "MIN_TISSUE_SHARE", 0.5)
    overlay.prediction.tokens[0] = np.nan
    box.refresh()
    check_order(shown, *training, "the training sections")
    # A published network brings no averages: that is said, and the highest come first.
    with monkeypatch.context() as patch:
        patch.setattr(network, "label_mean", torch.zeros(len(training[0])))
        box.refresh()
    assert "no average is known" in box.units_label.text() and not box.gene_bars.excess
    box.sort_combo.setFocus()
    QTest.keyClick(box.sort_combo, Qt.Key.Key_Down)
    assert box.sort_combo.currentText() == SORT_BY_VALUE and not box.gene_bars.excess
    values = [value for _, value, is_shown in box.gene_bars.rows if not is_shown]
    assert values == sorted(values, reverse=True)


def walk_run(shown: PredictWidget, qtbot, until) -> None:
    box, session = shown.target_box, shown.session
    choose(shown, TargetMode.TISSUE)
    until(lambda: box.target is not None)
    predictor = session.predictors.get(session.slide, session.checkpoint)
    predictor.batch_sizes.limit(2)
    predictor.clear_cache()
    ring = shown.findChild(FocusRing)
    window = shown.window()
    press(box.predict_button)
    assert window.focusWidget() is box.cancel_button and not ring.isVisible()  # by mouse
    finish(shown, until)
    assert window.focusWidget() is box.predict_button and not ring.isVisible()
    assert "tiles predicted" in shown.message_label.text()
    ((count, seconds),) = user_history.load_run_times(session.checkpoint.sha256, "cpu")
    assert count == len(box.target) and seconds > 0
    box.update_plan()  # the same one: it stays
    assert "tiles predicted" in shown.message_label.text() and "computed before" in (
        box.plan_label.text()
    )
    window.activateWindow()
    until(window.isActiveWindow)
    qtbot.keyClick(box.predict_button, Qt.Key.Key_Tab)
    assert ring.isVisible()  # by key
    choose(shown, TargetMode.CLICK)
    until(lambda: shown.message_label.text() == "")
    assert not box.predict_button.isVisible()


def walk_new_window(panel: PredictWidget, until) -> None:
    """What was folded is remembered; a slide without pixel size keeps its section open."""
    gene, slide = panel.sections["Gene"], panel.sections["Slide"]
    states = user_history.load_section_states()
    assert not states["DKAN: predict/Gene"] and not gene.is_open
    panel._find_gene()  # opens what it needs, for this time
    assert panel.gene_box.search_field.isVisible()
    assert user_history.load_section_states() == states
    assert not states["DKAN: predict/Slide"] and slide.is_open  # there is no slide yet
    panel.session.change_settings(prefetch=False)
    panel.session.viewer.add_image(np.full((400, 400, 3), 200, np.uint8), rgb=True)
    assert slide.is_open and panel.slide_box.pixel_size_field.isVisible()
    panel.slide_box.pixel_size_field.setValue(0.5)
    panel.window().activateWindow()
    until(panel.window().isActiveWindow)
    press(panel.slide_box.apply_button)
    if slide.is_open:  # an unlikely pixel size is asked for twice
        press(panel.slide_box.apply_button)
    assert not slide.is_open and slide.summary_label.text().endswith(", 0.5 um/px")
    assert not panel.findChild(FocusRing).isVisible()  # the pressed button has hidden itself


def test_panel_by_hand(
    shown: PredictWidget, make_panel: Callable[..., PredictWidget], qtbot, until, monkeypatch
):
    """One window for all: opening one takes longer than what is done in it."""
    walk_clicks(shown, until)
    for gene in shown.session.pinned:
        shown.session.set_pinned(gene, False)
    walk_sections(shown, qtbot, until)
    walk_run(shown, qtbot, until)
    walk_order(shown, until, monkeypatch)
    walk_new_window(make_panel(show=True), until)


def test_times_are_a_range_that_earlier_runs_narrow():
    assert estimate_run_seconds(100, [], None) is None
    low, high = estimate_run_seconds(100, [], 10.0)
    assert low < 10 < high and high / low > 4
    low, high = estimate_run_seconds(100, [(50, 5.0), (40, 5.0)], 10.0)
    assert low == pytest.approx(8) and high == pytest.approx(15.625)
    assert format_range(2.2, 8.6) == "2 to 9\u00a0s"
    assert format_range(50, 200) == "50\u00a0s to 3\u00a0min"
    assert format_range(0.2, 0.4) == "about 1\u00a0s"
    for n in range(12):
        user_history.add_run_time("abc", "cpu", 10 + n, 1.0)
    assert [count for count, _ in user_history.load_run_times("abc", "cpu")] == list(range(14, 22))
    assert user_history.load_run_times("abc", "cuda:0") == []

"""Preferences, help, small screens and keyboard control."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from threading import Event
from typing import TYPE_CHECKING

import pytest
from napari._qt.dialogs.preferences_dialog import PreferencesDialog
from napari.settings import get_plugin_settings
from qtpy.QtCore import QCoreApplication, QEvent, Qt, QUrl
from qtpy.QtWidgets import (
    QApplication,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QWidget,
)

from napari_dkan.inference import device_choice
from napari_dkan.viewer.panels import help_dialog as help
from napari_dkan.viewer.panels.finetune.finetune_widget import FinetuneWidget
from napari_dkan.viewer.panels.predict.gene_box import COLORMAPS
from napari_dkan.viewer.session.viewer_settings import (
    PREFERENCE_TO_SETTING,
    ContrastLimits,
    ViewerSettings,
    is_icc_enabled,
    settings_from_preferences,
)
from napari_dkan.viewer.widgets import scroll_column
from napari_dkan.viewer.widgets import theme_colors as tones
from napari_dkan.viewer.widgets.fold_section import FoldSection
from napari_dkan.viewer.widgets.job_row import JobRow
from napari_dkan.viewer.widgets.qt_utils import fill_column
from napari_dkan.viewer.widgets.scroll_column import FocusRing, ScrollColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget


@pytest.fixture
def known():
    """The plugin's preferences, in the settings of the test."""
    return get_plugin_settings("napari-dkan")


def test_figure_of_a_folded_section_is_never_cut(qtbot):
    section = FoldSection("Slide", QWidget(), with_change_button=True)
    qtbot.addWidget(section)
    section.set_summary("HER2+ breast, section C3, 0.686 um/px")
    section.setFixedWidth(300)
    section.show()
    label = section.summary_label
    label.setStyleSheet("padding: 3px")  # a theme's
    section.setFixedWidth(290)
    qtbot.waitUntil(lambda: label.sizeHint().width() <= label.width())
    assert label.text().endswith(", 0.686 um/px") and label.text().startswith("H")
    assert "\N{HORIZONTAL ELLIPSIS}" in label.text() and "C3, 0.686" in label.toolTip()
    section.set_summary("none yet")
    assert label.text() == "none yet"


# ---- preferences ------------------------------------------------------------------------


def test_defaults_of_preferences_and_settings_agree(known):
    assert settings_from_preferences() == ViewerSettings() and not is_icc_enabled()
    offered = type(known.maps).model_fields["colormap"].json_schema_extra["enum"]
    assert tuple(offered) == COLORMAPS
    for group, names in PREFERENCE_TO_SETTING.items():
        assert set(names) <= set(type(getattr(known, group)).model_fields)


def test_panel_follows_the_preferences_dialog(
    known, make_panel: Callable[..., PredictWidget], qtbot
):
    known.maps.colormap = "cividis"
    panel = make_panel()
    session = panel.session
    assert session.settings.colormap == panel.gene_box.colormap_combo.currentText() == "cividis"

    dialog = PreferencesDialog(session.viewer.window._qt_window)
    qtbot.addWidget(dialog)
    assert "napari-dkan" in dialog._list.item(dialog._list.count() - 1).text()
    session.change_settings(opacity=0.3)  # chosen in the panel
    known.maps.update({"hatch": False, "same_limits": True, "low": 0.5, "high": 2.0})
    wanted = replace(
        ViewerSettings(store_tiles=False),
        colormap="cividis",
        hatch_unreliable=False,
        opacity=0.3,
        contrast_limits=ContrastLimits((0.5, 2)),
    )
    assert session.settings == wanted
    assert not panel.gene_box.hatch_checkbox.isChecked() and panel.gene_box.high_limit.value() == 2
    known.maps.high = 0.1  # the wrong way round
    assert session.settings.contrast_limits == ContrastLimits()
    dialog.reject()  # Cancel: as when it was opened
    assert session.settings.hatch_unreliable
    panel.shut_down()
    known.maps.colormap = "viridis"
    assert session.settings.colormap == "cividis"


def test_missing_device_and_checkpoint(
    known, make_panel: Callable[..., PredictWidget], until, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)  # a GPU that its driver cannot use
    monkeypatch.setattr(device_choice, "_problems", {})
    known.predicting.device = "mps"
    known.predicting.checkpoint = str(tmp_path / "gone.safetensors")
    panel = make_panel()  # waits for a checkpoint, which is the one that comes along
    until(lambda: not panel.model_box.busy)
    assert panel.session.settings.device == panel.advanced["device"].value == "auto"
    assert "mps" in panel.message_label.text() or "gone" in panel.message_label.text()
    device, note = panel.advanced["device"], panel.advanced["device_note"]
    assert device.native.itemText(0) == "best (the CPU)" and not note.native.isHidden()
    assert note.value.startswith("The GPU cuda:0 cannot be used") and "CPU is used" in note.value


# ---- help -------------------------------------------------------------------------------


def test_help_texts_and_their_links_exist():
    for topic in help.PANEL_OF_TOPIC:
        text = help.load_topic_text(topic)
        assert text.startswith("# ") and len(text.split()) < 250
        for name in re.findall(r"\]\(docs:([\w-]+)\)", text):
            assert help.load_docs_page(name).startswith("# "), name


def test_help_is_not_modal_and_follows_links(make_panel: Callable[..., PredictWidget], qtbot):
    panel = make_panel()
    made = help.show_help("gene", panel, help.PANEL_OF_TOPIC["gene"])
    qtbot.addWidget(made)
    assert not made.isModal() and "Type a symbol" in made.browser.toPlainText()
    assert "Gene lens on or off" in made.browser.toPlainText()
    made.open_link(QUrl("docs:trust"))
    assert "reliability score" in made.browser.toPlainText() and not made.back_button.isHidden()
    made.back_button.click()
    assert "Type a symbol" in made.browser.toPlainText() and made.back_button.isHidden()
    made.open_link(QUrl("docs:../../secret"))
    assert "does not come with" in made.browser.toPlainText()


def test_documentation_is_in_the_package():
    assert (files("napari_dkan") / "docs" / "keys.md").is_file()


# ---- what is seen -------------------------------------------------------------------------


def find_cut_off_texts(panel: PredictWidget) -> list[str]:
    """Texts in sight that have less room than they need."""
    shown = [w for w in panel.findChildren(QLabel) if w.isVisible() and not w.wordWrap()]
    return [w.text() for w in shown if w.text() and w.minimumSizeHint().width() > w.width()]


def test_panels_fit_a_small_window_in_both_themes(
    compared: QualityWidget, panel: PredictWidget, until
):
    viewer = panel.session.viewer
    viewer.window._qt_window.show()
    viewer.window.resize(960, 540)
    tuning = FinetuneWidget(viewer)
    for fold in panel.findChildren(FoldSection):
        fold.expand()
    viewer.window.add_dock_widget(tuning, name="DKAN: fine-tune", area="right")
    tones.set_text_color(panel.message_label, tones.ERROR_COLOR)
    for theme in ("dark", "light"):
        viewer.theme = theme
        for widget in (panel, compared, tuning):
            dock = widget.parent()
            dock.raise_()
            until(widget.isVisible)
            area = widget.findChild(QScrollArea)
            until(lambda a=area: a.widget().width() <= a.viewport().width())
            until(lambda w=widget: not find_cut_off_texts(w))
        assert tones.color_for_theme(panel, tones.ERROR_COLOR) in panel.message_label.styleSheet()
        assert tones.is_dark_theme(panel) is (theme == "dark")
    tuning.shut_down()


def test_tab_reaches_every_control_with_a_focus_ring(panel: PredictWidget, qtbot, until):
    window = panel.session.viewer.window._qt_window
    window.show()
    window.activateWindow()
    until(lambda: panel.isVisible() and window.isActiveWindow())
    headers = {section.header for section in panel.sections.values()}
    panel.sections["Slide"].expand()
    wanted = headers | {
        child
        for box in (panel.slide_box, panel.target_box, panel.gene_box, panel.lens_box)
        for child in vars(box).values()
        if hasattr(child, "focusPolicy")
        and child.focusPolicy() & Qt.FocusPolicy.TabFocus
        and child.isVisible()
        and child.isEnabled()
    }
    panel.sections["Slide"].header.setFocus()
    reached, ring = [], panel.findChild(FocusRing)
    while (at := QApplication.focusWidget()) not in reached and panel.isAncestorOf(at):
        reached.append(at)
        shown = ring.geometry().translated(-at.mapTo(ring.parent(), at.rect().topLeft()))
        assert ring.isVisible() and shown.contains(at.rect().adjusted(1, 1, -1, -1))
        qtbot.keyClick(at, Qt.Key.Key_Tab)
    assert len(wanted) > 8 and not wanted - set(reached)
    down = [at.mapTo(ring.parent(), at.rect().bottomLeft()).y() for at in reached]
    assert all(b > a - 40 for a, b in pairwise(down))  # from top to bottom


def test_what_was_asked_for_stays_in_sight_while_boxes_above_it_appear(qtbot):
    """As the histogram does a moment after the bars of the first click."""
    content, late, bars, below = QWidget(), QWidget(), QWidget(), QWidget()
    for box, height in ((late, 150), (bars, 200), (below, 300)):
        box.setFixedHeight(height)
    fill_column(content, late, bars, below)
    column = ScrollColumn(content)
    qtbot.addWidget(column)
    column.resize(200, 220)
    late.hide()
    column.show()
    qtbot.waitExposed(column)
    column.reveal(bars)
    late.show()
    qtbot.waitUntil(lambda: bars.visibleRegion().boundingRect() == bars.rect())
    bar = column.verticalScrollBar()
    bar.triggerAction(bar.SliderAction.SliderToMinimum)  # the user scrolls
    late.setFixedHeight(160)
    qtbot.wait(50)
    assert bar.value() == 0


def test_an_opened_section_and_its_answer_are_in_sight(qtbot, until, monkeypatch):
    """But the column stays where it is while the user is elsewhere in it."""
    monkeypatch.setattr(scroll_column, "SETTLE_MS", 0)  # the answer comes later
    name, start, table = QLineEdit(), QPushButton("Find"), QWidget()
    name.setFixedHeight(180)
    table.setFixedHeight(120)
    row, box, content, go_on = JobRow("find", start, start), QWidget(), QWidget(), Event()
    fill_column(box, row, table)
    section, tall = FoldSection("Domains", box), FoldSection("More", QWidget())
    tall.content.setFixedHeight(400)
    fill_column(content, name, section, tall).addStretch(1)
    column = ScrollColumn(content)
    qtbot.addWidget(column)
    column.resize(200, 240)
    column.show()
    qtbot.waitExposed(column)
    bar = column.verticalScrollBar()

    def answer(meanwhile: Callable[[], object]) -> int:
        """Return where the column is scrolled to when the table has come."""
        table.hide()
        go_on.clear()
        qtbot.waitUntil(lambda: row.height() == row.sizeHint().height())
        qtbot.mouseClick(start, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: column._revealed is None)
        meanwhile()
        before = bar.value()
        go_on.set()
        until(lambda: not row.busy)
        qtbot.waitUntil(lambda: content.height() >= content.minimumSizeHint().height())
        return bar.value() - before

    def find() -> Iterator[None]:
        go_on.wait()
        yield

    start.clicked.connect(lambda: row.start(find, lambda item: table.show()))
    table.hide()
    qtbot.mouseClick(section.header, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: section.visibleRegion().boundingRect() == section.rect())
    answer(lambda: None)
    qtbot.waitUntil(lambda: section.visibleRegion().boundingRect() == section.rect())
    assert answer(name.setFocus) == 0  # about to type
    assert answer(lambda: bar.triggerAction(bar.SliderAction.SliderToMinimum)) == 0

    qtbot.mouseClick(tall.header, Qt.MouseButton.LeftButton)  # higher than the column
    qtbot.waitUntil(lambda: tall.mapTo(column.viewport(), tall.rect().topLeft()).y() == 0)


def test_event_filters_survive_garbage_collection(qtbot):
    """Python clears the attributes of an unreferenced window before Qt stops sending events."""
    content = QWidget()
    column = ScrollColumn(content)
    qtbot.addWidget(column)
    tones.connect_theme_change(content, lambda: None)
    follower = next(child for child in content.children() if hasattr(child, "callback"))
    for each in (column, column.focus_ring, follower):
        vars(each).clear()
    for kind in (QEvent.Type.LayoutRequest, QEvent.Type.Resize, QEvent.Type.StyleChange):
        with qtbot.captureExceptions() as raised:
            QCoreApplication.sendEvent(content, QEvent(kind))
        assert raised == []

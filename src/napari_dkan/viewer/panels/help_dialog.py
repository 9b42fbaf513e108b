"""Headings of boxes, and the help dialog behind their "?". It works without a network."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices, QPalette
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTextBrowser,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..session.shortcut_actions import (
    ACTIONS,
    FINETUNE_PANEL,
    PREDICT_PANEL,
    QUALITY_PANEL,
    REGIONS_PANEL,
    shortcut_label,
)
from ..widgets.theme_colors import LINK_COLOR, color_for_theme, connect_theme_change

# The panel of each topic; its keys are listed below the text of help_texts/<topic>.md.
PANEL_OF_TOPIC = {
    "slide": PREDICT_PANEL,
    "model": PREDICT_PANEL,
    "where": PREDICT_PANEL,
    "gene": PREDICT_PANEL,
    "several": PREDICT_PANEL,
    "spot": PREDICT_PANEL,
    "results": PREDICT_PANEL,
    "quality": QUALITY_PANEL,
    "finetune": FINETUNE_PANEL,
    "regions": REGIONS_PANEL,
    "compare": REGIONS_PANEL,
}
DOCS_SCHEME = "docs"  # scheme of links to pages of the documentation
IMAGE_MARKDOWN = re.compile(r"!\[[^\]]*\]\([^)]*\)")  # images are not in the package


class HelpDialog(QDialog):
    """A non-modal window with a help text and the pages of its links."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("napari-dkan: help")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._history: list[str] = []
        self.browser = QTextBrowser()
        self.browser.setOpenLinks(False)
        self.browser.anchorClicked.connect(self.open_link)
        self.back_button, close = QPushButton("Back"), QPushButton("Close")
        self.back_button.clicked.connect(self._go_back)
        close.clicked.connect(self.close)
        buttons = QHBoxLayout()
        buttons.addWidget(self.back_button)
        buttons.addStretch(1)
        buttons.addWidget(close)
        layout = QVBoxLayout(self)
        layout.addWidget(self.browser)
        layout.addLayout(buttons)
        self.resize(460, 480)
        connect_theme_change(self.browser, self._show_current)

    def show_text(self, text: str) -> None:
        """Show a Markdown text; Back returns to the previous one."""
        self._history.append(text)
        self._show_current()

    def open_link(self, url: QUrl) -> None:
        """Show a page of the documentation; open other links with the system's browser."""
        name = url.path() if url.scheme() == DOCS_SCHEME else Path(url.path()).stem
        if not url.scheme() or url.scheme() == DOCS_SCHEME:
            self.show_text(load_docs_page(name))
        else:
            QDesktopServices.openUrl(url)

    def _go_back(self) -> None:
        self._history.pop()
        self._show_current()

    def _show_current(self) -> None:
        if not self._history:
            return
        self.browser.setMarkdown(self._history[-1])
        links = QPalette().color(QPalette.ColorRole.Link).name()  # too dark for dark themes
        self.browser.setHtml(
            self.browser.toHtml().replace(links, color_for_theme(self.browser, LINK_COLOR))
        )
        self.back_button.setVisible(len(self._history) > 1)


def make_heading(text: str, topic: str = "") -> QWidget:
    """Return the heading of a box, with a help button if there is a topic."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    if not topic:
        return label
    row = QWidget()
    line = QHBoxLayout(row)
    line.setContentsMargins(0, 0, 0, 0)
    line.addWidget(label, 1)
    line.addWidget(make_help_button(topic))
    return row


def make_help_button(topic: str) -> QToolButton:
    """Return a button that opens the help on a topic.

    Raises
    ------
    KeyError
        If there is no such topic.
    """
    panel = PANEL_OF_TOPIC[topic]
    button = QToolButton()
    button.setText("?")
    button.setAutoRaise(True)
    button.setToolTip("Help")
    button.setAccessibleName(f"Help: {topic}")
    button.clicked.connect(lambda: show_help(topic, button, panel))
    return button


def show_help(topic: str, parent_widget: QWidget, panel: str) -> HelpDialog:
    """Open the help on a topic."""
    dialog = HelpDialog(parent_widget.window())
    dialog.show_text(f"{load_topic_text(topic)}\n\n{shortcut_table(panel)}")
    dialog.show()
    return dialog


def show_help_if_visible(topic: str, panel: QWidget) -> None:
    """Open the help of a panel if it is visible; several panels share one shortcut."""
    if panel.isVisible():
        show_help(topic, panel, PANEL_OF_TOPIC[topic])


def load_topic_text(topic: str) -> str:
    """Load the Markdown text of a topic."""
    file = files(__package__) / "help_texts" / f"{topic}.md"
    return file.read_text(encoding="utf-8")


def load_docs_page(name: str) -> str:
    """Load a page of the documentation, which is part of the package."""
    file = Path(str(files("napari_dkan"))) / DOCS_SCHEME / f"{Path(name).name}.md"
    if not file.is_file():
        return f"The page {name}.md does not come with this copy of napari-dkan."
    return IMAGE_MARKDOWN.sub("", file.read_text(encoding="utf-8"))


def shortcut_table(panel: str) -> str:
    """Return the current shortcuts of a panel as a Markdown table."""
    rows = [
        f"| {shortcut_label(a.name)} | {a.description} |"
        for a in ACTIONS
        if a.panel == panel and shortcut_label(a.name)
    ]
    lines = ["| Key | does |", "|---|---|", *rows]
    return "\n".join([*lines, "", "*File > Preferences > Shortcuts* changes them."])

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
    shortcut_label,
)
from ..widgets.theme_colors import LINK_COLOR, color_for_theme, connect_theme_change

# What each topic's panel is: its keys are listed below the text. Texts: help_texts/<topic>.md
PANEL_OF_TOPIC = {
    "slide": PREDICT_PANEL,
    "model": PREDICT_PANEL,
    "where": PREDICT_PANEL,
    "gene": PREDICT_PANEL,
    "spot": PREDICT_PANEL,
    "results": PREDICT_PANEL,
    "quality": QUALITY_PANEL,
    "finetune": FINETUNE_PANEL,
}
DOCS_SCHEME = "docs"  # links of this scheme lead to a page of the documentation
IMAGE_MARKDOWN = re.compile(r"!\[[^\]]*\]\([^)]*\)")  # the pages' pictures stay outside the package


class HelpDialog(QDialog):
    """A text, and the pages it leads to. Not modal: it stays beside the work."""

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
        self._history.append(text)
        self._show_current()

    def open_link(self, url: QUrl) -> None:
        """A page of the documentation opens here, anything else where the person's system does."""
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
        links = QPalette().color(QPalette.ColorRole.Link).name()  # made for a white ground
        self.browser.setHtml(
            self.browser.toHtml().replace(links, color_for_theme(self.browser, LINK_COLOR))
        )
        self.back_button.setVisible(len(self._history) > 1)


def make_heading(text: str, topic: str = "") -> QWidget:
    """The heading of a box, and a button with the help on it where there is a topic."""
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
    """Opens the help on a topic. Raises KeyError when there is none."""
    panel = PANEL_OF_TOPIC[topic]
    button = QToolButton()
    button.setText("?")
    button.setAutoRaise(True)
    button.setToolTip("Help")
    button.setAccessibleName(f"Help: {topic}")
    button.clicked.connect(lambda: show_help(topic, button, panel))
    return button


def show_help(topic: str, parent_widget: QWidget, panel: str) -> HelpDialog:
    """Open the help on a topic as a window of the panel's window."""
    made = HelpDialog(parent_widget.window())
    made.show_text(f"{load_topic_text(topic)}\n\n{shortcut_table(panel)}")
    made.show()
    return made


def show_help_if_visible(topic: str, panel: QWidget) -> None:
    """By key: the help of the panel that is in sight, of several that are open."""
    if panel.isVisible():
        show_help(topic, panel, PANEL_OF_TOPIC[topic])


def load_topic_text(topic: str) -> str:
    file = files(__package__) / "help_texts" / f"{topic}.md"
    return file.read_text(encoding="utf-8")


def load_docs_page(name: str) -> str:
    """A page of the documentation, which travels with the package."""
    file = Path(str(files("napari_dkan"))) / DOCS_SCHEME / f"{Path(name).name}.md"
    if not file.is_file():
        return f"The page {name}.md does not come with this copy of napari-dkan."
    return IMAGE_MARKDOWN.sub("", file.read_text(encoding="utf-8"))


def shortcut_table(panel: str) -> str:
    """The keys of a panel as a table, as they are now."""
    rows = [
        f"| {shortcut_label(a.name)} | {a.description} |"
        for a in ACTIONS
        if a.panel == panel and shortcut_label(a.name)
    ]
    lines = ["| Key | does |", "|---|---|", *rows]
    return "\n".join([*lines, "", "*File > Preferences > Shortcuts* changes them."])

"""The "?" beside a heading: what this is for, in a small window, without a network."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices, QPalette
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QPushButton,
    QTextBrowser,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .actions import ACTIONS, FINETUNE, PREDICT, QUALITY, told
from .tones import LINK, on_theme, tone_of

# What each topic's panel is: its keys are listed below the text. Texts: help_texts/<topic>.md
TOPICS = {
    "slide": PREDICT,
    "model": PREDICT,
    "where": PREDICT,
    "gene": PREDICT,
    "spot": PREDICT,
    "results": PREDICT,
    "quality": QUALITY,
    "finetune": FINETUNE,
}
DOCS = "docs"  # links of this scheme lead to a page of the documentation
PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")  # the pages' pictures stay outside the package


class Help(QDialog):
    """A text, and the pages it leads to. Not modal: it stays beside the work."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("napari-dkan: help")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._texts: list[str] = []
        self.browser = QTextBrowser()
        self.browser.setOpenLinks(False)
        self.browser.anchorClicked.connect(self.follow)
        self.back, close = QPushButton("Back"), QPushButton("Close")
        self.back.clicked.connect(self._back)
        close.clicked.connect(self.close)
        buttons = QHBoxLayout()
        buttons.addWidget(self.back)
        buttons.addStretch(1)
        buttons.addWidget(close)
        layout = QVBoxLayout(self)
        layout.addWidget(self.browser)
        layout.addLayout(buttons)
        self.resize(460, 480)
        on_theme(self.browser, self._show)

    def show_text(self, text: str) -> None:
        self._texts.append(text)
        self._show()

    def follow(self, url: QUrl) -> None:
        """A page of the documentation opens here, anything else where the person's system does."""
        name = url.path() if url.scheme() == DOCS else Path(url.path()).stem
        if not url.scheme() or url.scheme() == DOCS:
            self.show_text(page_of(name))
        else:
            QDesktopServices.openUrl(url)

    def _back(self) -> None:
        self._texts.pop()
        self._show()

    def _show(self) -> None:
        if not self._texts:
            return
        self.browser.setMarkdown(self._texts[-1])
        links = QPalette().color(QPalette.ColorRole.Link).name()  # made for a white ground
        self.browser.setHtml(self.browser.toHtml().replace(links, tone_of(self.browser, LINK)))
        self.back.setVisible(len(self._texts) > 1)


def help_button(topic: str) -> QToolButton:
    """Opens the help on a topic. Raises KeyError when there is none."""
    panel = TOPICS[topic]
    button = QToolButton()
    button.setText("?")
    button.setAutoRaise(True)
    button.setToolTip("Help")
    button.setAccessibleName(f"Help: {topic}")
    button.clicked.connect(lambda: show(topic, button, panel))
    return button


def show(topic: str, beside: QWidget, panel: str) -> Help:
    """Open the help on a topic as a window of the panel's window."""
    made = Help(beside.window())
    made.show_text(f"{text_of(topic)}\n\n{keys_text(panel)}")
    made.show()
    return made


def show_in_front(topic: str, panel: QWidget) -> None:
    """By key: the help of the panel that is in sight, of several that are open."""
    if panel.isVisible():
        show(topic, panel, TOPICS[topic])


def text_of(topic: str) -> str:
    file = files(__package__) / "help_texts" / f"{topic}.md"
    return file.read_text(encoding="utf-8")


def page_of(name: str) -> str:
    """A page of the documentation, which travels with the package."""
    file = Path(str(files("napari_dkan"))) / DOCS / f"{Path(name).name}.md"
    if not file.is_file():
        return f"The page {name}.md does not come with this copy of napari-dkan."
    return PICTURE.sub("", file.read_text(encoding="utf-8"))


def keys_text(panel: str) -> str:
    """The keys of a panel as a table, as they are now."""
    rows = [f"| {told(a.name)} | {a.does} |" for a in ACTIONS if a.panel == panel and told(a.name)]
    lines = ["| Key | does |", "|---|---|", *rows]
    return "\n".join([*lines, "", "*File > Preferences > Shortcuts* changes them."])

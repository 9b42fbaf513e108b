"""Which measured sections to learn from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..links import Links
from ..quality.section import LoadedSection
from ..quality.state import Quality

ROWS = 4  # as many sections are seen at once
NONE = "No measured section is loaded."
SOME = "Sections that are not ticked teach nothing; the change on them is reported."


class SectionsBox(QWidget):
    """The loaded sections with a tick each, and a button that loads more."""

    ticked_changed = Signal()

    def __init__(self, quality: Quality, links: Links) -> None:
        super().__init__()
        self._quality = quality
        self._known: list[LoadedSection] = []
        self.list = QListWidget()
        self.list.setToolTip("Tick the sections to learn from.")
        self.hint = QLabel(NONE)
        self.hint.setWordWrap(True)
        self.load = QPushButton("Load measured ST...")
        self.load.setToolTip(
            "Space Ranger, her2st, h5ad, SpatialData or HEST; or drop a folder or file on napari"
        )
        self._menu = QMenu(self.load)
        self.load.setMenu(self._menu)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addWidget(self.hint)
        layout.addWidget(self.load)
        self._menu.aboutToShow.connect(self._offer)
        self.list.itemChanged.connect(lambda item: self._told())
        links.join(self.refresh, quality.sections_changed, quality.section_changed)
        links.join(self._hint, quality.progress_changed)
        self.refresh()

    def ticked(self) -> tuple[LoadedSection, ...]:
        return self._where(Qt.CheckState.Checked)

    def others(self) -> tuple[LoadedSection, ...]:
        """Sections that are loaded, lie on a slide and are not ticked."""
        left = self._where(Qt.CheckState.Unchecked)
        return tuple(s for s in left if s.slide is not None)

    def _where(self, state: Qt.CheckState) -> tuple[LoadedSection, ...]:
        rows = range(self.list.count())
        return tuple(self._known[i] for i in rows if self.list.item(i).checkState() == state)

    def tick(self, section: LoadedSection, on: bool = True) -> None:
        state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        self.list.item(self._known.index(section)).setCheckState(state)

    def refresh(self) -> None:
        """The first section is ticked; whether further ones teach is left to the person."""
        unticked = {id(s) for s in self._where(Qt.CheckState.Unchecked)}
        known = {id(s) for s in self._known}
        sections = list(self._quality.sections)
        self.list.blockSignals(True)
        self.list.clear()
        for section in sections:
            item = QListWidgetItem(_described(section))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            new = id(section) not in known
            ticked = not known if new else id(section) not in unticked
            item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            item.setToolTip(str(section.source))
            self.list.addItem(item)
        self._known = sections
        self.list.blockSignals(False)
        row = self.list.sizeHintForRow(0) if sections else 0
        self.list.setFixedHeight(min(len(sections), ROWS) * row + 6)
        self.list.setVisible(bool(sections))
        self._told()

    def _told(self) -> None:
        self._hint()
        self.ticked_changed.emit()

    def _hint(self) -> None:
        text = SOME if len(self._known) > 1 else "" if self._known else NONE
        if self._quality.busy and self._quality.stage:
            text = f"{self._quality.stage} ..."
        self.hint.setText(text)
        self.hint.setVisible(bool(text))

    def _offer(self) -> None:
        """A folder, files, and what else lies in the folder that was loaded last."""
        self._menu.clear()
        self._menu.addAction("A folder...", self._ask_folder)
        self._menu.addAction("Files...", self._ask_files)
        if self._quality.choices:
            self._menu.addSection("In the same folder")
        for choice in self._quality.choices:
            self._menu.addAction(choice.name, partial(self._quality.take, choice))

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder with measured ST")
        if name:
            self._quality.load([Path(name)])

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Files of measured ST")
        if names:
            self._quality.load([Path(n) for n in names])


def _described(section: LoadedSection) -> str:
    """``C3   182 spots``, and what is missing."""
    where = "" if section.slide is not None else ", its slide is not open"
    return f"{section.name}   {section.data.n_obs:,} spots{where}"

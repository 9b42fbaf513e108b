"""Box to choose the measured sections for training."""

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

from ...widgets.signal_connections import SignalConnections
from ..quality.data.loaded_section import LoadedSection
from ..quality.quality_controller import QualityController

MAX_VISIBLE_SECTIONS = 4  # as many sections are seen at once
NO_SECTIONS_HINT = "No measured section is loaded."
UNTICKED_HINT = "Sections that are not ticked teach nothing; the change on them is reported."


class FinetuneSectionsBox(QWidget):
    """The loaded sections with a tick each, and a button that loads more."""

    ticked_changed = Signal()

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        super().__init__()
        self._quality = quality
        self._sections: list[LoadedSection] = []
        self.section_list = QListWidget()
        self.section_list.setToolTip("Tick the sections to learn from.")
        self.hint_label = QLabel(NO_SECTIONS_HINT)
        self.hint_label.setWordWrap(True)
        self.load_button = QPushButton("Load measured ST...")
        self.load_button.setToolTip(
            "Space Ranger, her2st, h5ad, SpatialData or HEST; or drop a folder or file on napari"
        )
        self._menu = QMenu(self.load_button)
        self.load_button.setMenu(self._menu)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.section_list)
        layout.addWidget(self.hint_label)
        layout.addWidget(self.load_button)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.section_list.itemChanged.connect(lambda item: self._on_ticks_changed())
        connections.connect(self.refresh, quality.sections_changed, quality.section_changed)
        connections.connect(self._update_hint, quality.progress_changed)
        self.refresh()

    def ticked_sections(self) -> tuple[LoadedSection, ...]:
        return self._sections_with_state(Qt.CheckState.Checked)

    def unticked_sections(self) -> tuple[LoadedSection, ...]:
        """Sections that are loaded, lie on a slide and are not ticked."""
        left = self._sections_with_state(Qt.CheckState.Unchecked)
        return tuple(s for s in left if s.slide is not None)

    def _sections_with_state(self, state: Qt.CheckState) -> tuple[LoadedSection, ...]:
        rows = range(self.section_list.count())
        return tuple(
            self._sections[i] for i in rows if self.section_list.item(i).checkState() == state
        )

    def set_ticked(self, section: LoadedSection, on: bool = True) -> None:
        state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        self.section_list.item(self._sections.index(section)).setCheckState(state)

    def refresh(self) -> None:
        """The first section is ticked; whether further ones teach is left to the person."""
        unticked = {id(s) for s in self._sections_with_state(Qt.CheckState.Unchecked)}
        known = {id(s) for s in self._sections}
        sections = list(self._quality.sections)
        self.section_list.blockSignals(True)
        self.section_list.clear()
        for section in sections:
            item = QListWidgetItem(_describe_section(section))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            new = id(section) not in known
            ticked = not known if new else id(section) not in unticked
            item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            item.setToolTip(str(section.source))
            self.section_list.addItem(item)
        self._sections = sections
        self.section_list.blockSignals(False)
        row = self.section_list.sizeHintForRow(0) if sections else 0
        self.section_list.setFixedHeight(min(len(sections), MAX_VISIBLE_SECTIONS) * row + 6)
        self.section_list.setVisible(bool(sections))
        self._on_ticks_changed()

    def _on_ticks_changed(self) -> None:
        self._update_hint()
        self.ticked_changed.emit()

    def _update_hint(self) -> None:
        text = (
            UNTICKED_HINT if len(self._sections) > 1 else "" if self._sections else NO_SECTIONS_HINT
        )
        if self._quality.busy and self._quality.stage:
            text = f"{self._quality.stage} ..."
        self.hint_label.setText(text)
        self.hint_label.setVisible(bool(text))

    def _fill_menu(self) -> None:
        """A folder, files, and what else lies in the folder that was loaded last."""
        self._menu.clear()
        self._menu.addAction("A folder...", self._ask_folder)
        self._menu.addAction("Files...", self._ask_files)
        if self._quality.candidates:
            self._menu.addSection("In the same folder")
        for choice in self._quality.candidates:
            self._menu.addAction(choice.name, partial(self._quality.load_candidate, choice))

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder with measured ST")
        if name:
            self._quality.load([Path(name)])

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Files of measured ST")
        if names:
            self._quality.load([Path(n) for n in names])


def _describe_section(section: LoadedSection) -> str:
    """``C3   182 spots``, and what is missing."""
    where = "" if section.slide is not None else ", its slide is not open"
    return f"{section.name}   {section.data.n_obs:,} spots{where}"

"""Box to choose the measured sections for training."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from ...widgets.qt_utils import fill_column, make_text_label
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import WARNING_COLOR, set_text_color
from ..predict.model_box import is_trained_on
from ..quality.boxes.few_genes_box import FewGenesBox
from ..quality.boxes.measured_box import LoadSectionButton
from ..quality.data.loaded_section import LoadedSection
from ..quality.quality_controller import QualityController

MAX_VISIBLE_SECTIONS = 4  # further ones are reached by scrolling
NO_SECTIONS_HINT = "No measured section is loaded."
UNTICKED_HINT = "Sections that are not ticked are not trained on; the change on them is reported."


class FinetuneSectionsBox(QWidget):
    """List of the loaded sections with a check box each, and a button that loads more."""

    ticked_changed = Signal()

    def __init__(self, controller: QualityController, connections: SignalConnections) -> None:
        super().__init__()
        self._controller, self._model = controller, controller.model
        self._sections: list[LoadedSection] = []
        self.section_list = QListWidget()
        self.section_list.setToolTip("Tick the sections to learn from.")
        self.hint_label = make_text_label(NO_SECTIONS_HINT)
        self.trained_on_label = make_text_label()
        set_text_color(self.trained_on_label, WARNING_COLOR)
        self.load_button = LoadSectionButton(controller, file_filter="", list_candidates=True)
        model = self._model
        self.few_genes_box = FewGenesBox(controller, connections, lambda: model.sections)
        fill_column(
            self,
            self.section_list,
            self.trained_on_label,
            self.hint_label,
            self.few_genes_box,
            self.load_button,
        )
        self.section_list.itemChanged.connect(lambda item: self._on_ticks_changed())
        connections.connect(self.refresh, model.sections_changed, model.section_changed)
        connections.connect(self._update_hint, model.progress_changed)
        connections.connect(self._warn_of_training, controller.session.checkpoint_changed)
        self.refresh()

    def ticked_sections(self) -> tuple[LoadedSection, ...]:
        return self._sections_with_state(Qt.CheckState.Checked)

    def unticked_sections(self) -> tuple[LoadedSection, ...]:
        """Return the sections that are not ticked and have a slide."""
        unticked = self._sections_with_state(Qt.CheckState.Unchecked)
        return tuple(s for s in unticked if s.slide is not None)

    def _sections_with_state(self, state: Qt.CheckState) -> tuple[LoadedSection, ...]:
        rows = range(self.section_list.count())
        return tuple(
            self._sections[i] for i in rows if self.section_list.item(i).checkState() == state
        )

    def set_ticked(self, section: LoadedSection, on: bool = True) -> None:
        state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        self.section_list.item(self._sections.index(section)).setCheckState(state)

    def refresh(self) -> None:
        """List the sections; the first one is ticked, further ones are not."""
        unticked = {id(s) for s in self._sections_with_state(Qt.CheckState.Unchecked)}
        known = {id(s) for s in self._sections}
        sections = list(self._model.sections)
        self.section_list.blockSignals(True)
        self.section_list.clear()
        for section in sections:
            item = QListWidgetItem(_describe_section(section))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            is_new = id(section) not in known
            is_ticked = not known if is_new else id(section) not in unticked
            item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
            item.setToolTip(str(section.source))
            self.section_list.addItem(item)
        self._sections = sections
        self.section_list.blockSignals(False)
        row = self.section_list.sizeHintForRow(0) if sections else 0
        self.section_list.setFixedHeight(min(len(sections), MAX_VISIBLE_SECTIONS) * row + 6)
        self.section_list.setVisible(bool(sections))
        self._on_ticks_changed()
        self._warn_of_training()

    def _warn_of_training(self) -> None:
        """Name the sections on whose slides the checkpoint was trained."""
        checkpoint = self._controller.session.checkpoint
        names = [
            section.name
            for section in self._sections
            if checkpoint is not None
            and section.slide is not None
            and is_trained_on(checkpoint, section.slide.slide)
        ]
        were = "were" if len(names) > 1 else "was"
        self.trained_on_label.setText(
            f"{' and '.join(names)} {were} trained on: no measure of what fine-tuning brings."
        )
        self.trained_on_label.setVisible(bool(names))

    def _on_ticks_changed(self) -> None:
        self._update_hint()
        self.ticked_changed.emit()

    def _update_hint(self) -> None:
        text = (
            UNTICKED_HINT if len(self._sections) > 1 else "" if self._sections else NO_SECTIONS_HINT
        )
        if self._controller.busy and self._model.stage:
            text = f"{self._model.stage} ..."
        self.hint_label.setText(text)
        self.hint_label.setVisible(bool(text))


def _describe_section(section: LoadedSection) -> str:
    """Describe a section, e.g. ``C3   182 spots``."""
    note = "" if section.slide is not None else ", its slide is not open"
    return f"{section.name}   {section.data.n_obs:,} spots{note}"

"""Box that offers to use a section of which few genes are in the checkpoint's panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QCheckBox, QWidget

from ....widgets.qt_utils import escape_ampersand, fill_column, make_text_label
from ....widgets.signal_connections import SignalConnections
from ....widgets.theme_colors import WARNING_COLOR, set_text_color
from ..data.loaded_section import LoadedSection
from ..quality_controller import QualityController


class FewGenesBox(QWidget):
    """Says why a section is refused, with a check box that accepts it; hidden for others.

    Parameters
    ----------
    controller, connections
    list_sections
        Returns the sections that the panel uses; the first one that is refused is shown.
    """

    def __init__(
        self,
        controller: QualityController,
        connections: SignalConnections,
        list_sections: Callable[[], Sequence[LoadedSection]],
    ) -> None:
        super().__init__()
        self._controller, self._list_sections = controller, list_sections
        self._section: LoadedSection | None = None
        self.refusal_label = make_text_label(selectable=True)
        set_text_color(self.refusal_label, WARNING_COLOR)
        self.accept_checkbox = QCheckBox()
        self.accept_checkbox.setToolTip(
            "Names of another species agree by chance. Tick it where you know that these genes "
            "are the same; all figures are of these few."
        )
        fill_column(self, self.refusal_label, self.accept_checkbox)
        self.accept_checkbox.clicked.connect(self._accept)
        model = controller.model
        connections.connect(self.refresh, model.sections_changed, model.section_changed)
        self.refresh()

    def refresh(self) -> None:
        sections = [s for s in self._list_sections() if s.few_genes_refusal or s.accepts_few_genes]
        sections.sort(key=lambda s: s.accepts_few_genes)
        section = self._section = sections[0] if sections else None
        self.setVisible(section is not None)
        if section is None:
            return
        self.refusal_label.setText(section.few_genes_refusal)
        self.refusal_label.setVisible(bool(section.few_genes_refusal))
        self.accept_checkbox.setText(f"Use the few genes of {escape_ampersand(section.name)}")
        self.accept_checkbox.setChecked(section.accepts_few_genes)

    def _accept(self, accepted: bool) -> None:
        if self._section is not None:
            self._controller.accept_few_genes(self._section, accepted)

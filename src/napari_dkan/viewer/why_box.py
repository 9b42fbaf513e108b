"""The control of "why here": on or off, and what the picture means."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from .actions import set_tooltip
from .links import SignalConnections
from .session import ViewerSession
from .why import OcclusionExplainer

LEGEND_TEXT = (
    "Covering what is orange lowers {gene}, covering what is blue raises it: about the model, "
    "not about biology."
)


class OcclusionBox(QWidget):
    """Belongs under the clicked spot. Its owner calls `explainer.close` when the panel goes."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self.explainer = OcclusionExplainer(session, connections)
        self.checkbox = QCheckBox("Why here")
        set_tooltip(
            self.checkbox,
            "Which parts of the patch and which of its neighbours carry this gene's value here:\n"
            "each is covered in turn and the model is asked again ({key}).\n"
            "Strong colours are the strongest of the patch and the strongest of the neighbours.",
            "why",
            connections,
        )
        self.legend_label = QLabel()
        self.legend_label.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.checkbox)
        layout.addWidget(self.legend_label)
        self.checkbox.clicked.connect(self.explainer.set_active)
        connections.connect(self.refresh, self.explainer.changed)
        self.refresh()

    def refresh(self) -> None:
        explainer = self.explainer
        self.checkbox.setChecked(explainer.active)
        self.legend_label.setVisible(explainer.active)
        if not explainer.busy or explainer.explanation is not None:  # no blank in between
            self.legend_label.setText(self._format_legend())

    def _format_legend(self) -> str:
        explainer, found = self.explainer, self.explainer.explanation
        if not explainer.has_spot:
            return "Click on tissue to see why."
        if found is None:
            return f"Click again to explain {explainer.session.gene or 'this gene'} here."
        meaning, value = LEGEND_TEXT.format(gene=explainer.gene), found.value
        return (
            f"{meaning}\n{explainer.gene} {value:.2f}; with the whole patch covered "
            f"{value - found.patch:.2f}, with all its neighbours covered "
            f"{value - found.neighborhood:.2f}."
        )

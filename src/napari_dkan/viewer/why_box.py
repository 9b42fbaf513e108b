"""The control of "why here": on or off, and what the picture means."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from .actions import tip
from .links import Links
from .session import Session
from .why import Explainer

MEANING = (
    "Covering what is orange lowers {gene}, covering what is blue raises it: about the model, "
    "not about biology."
)


class WhyBox(QWidget):
    """Belongs under the clicked spot. Its owner calls `explainer.close` when the panel goes."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self.explainer = Explainer(session, links)
        self.check = QCheckBox("Why here")
        tip(
            self.check,
            "Which parts of the patch and which of its neighbours carry this gene's value here:\n"
            "each is covered in turn and the model is asked again ({key}).\n"
            "Strong colours are the strongest of the patch and the strongest of the neighbours.",
            "why",
            links,
        )
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.check)
        layout.addWidget(self.legend)
        self.check.clicked.connect(self.explainer.switch)
        links.join(self.refresh, self.explainer.changed)
        self.refresh()

    def refresh(self) -> None:
        explainer = self.explainer
        self.check.setChecked(explainer.on)
        self.legend.setVisible(explainer.on)
        if not explainer.busy or explainer.found is not None:  # no blank in between
            self.legend.setText(self._text())

    def _text(self) -> str:
        explainer, found = self.explainer, self.explainer.found
        if not explainer.clicked:
            return "Click on tissue to see why."
        if found is None:
            return f"Click again to explain {explainer.session.gene or 'this gene'} here."
        meaning, value = MEANING.format(gene=explainer.gene), found.value
        return (
            f"{meaning}\n{explainer.gene} {value:.2f}; with the whole patch covered "
            f"{value - found.patch:.2f}, with all its neighbours covered "
            f"{value - found.around:.2f}."
        )

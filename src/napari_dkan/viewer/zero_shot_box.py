"""Genes outside the panel, added by the text that describes them."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from ..errors import DkanError, SpotsError
from ..inference.zero_shot import expectation, why_not, zero_shot_genes
from .links import Links
from .session import Session


class ZeroShotBox(QWidget):
    """A button for a gene file; off, with the reason, where the card has no proof of it."""

    def __init__(self, session: Session, links: Links) -> None:
        super().__init__()
        self._session = session
        self.add = QPushButton("Add genes by description...")
        self.why_not = QLabel()
        self.why_not.setWordWrap(True)
        self.why_not.setEnabled(False)  # grey, as the button it explains
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.add)
        layout.addWidget(self.why_not)
        self.add.clicked.connect(self._choose_file)
        links.join(self.refresh, session.checkpoint_changed, session.settings_changed)
        self.refresh()

    def _choose_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Genes from `napari-dkan genes build`", "", "Gene file (*.safetensors)"
        )
        if name:
            self.add_genes(Path(name))

    def add_genes(self, path: Path) -> None:
        """Take the genes of a file that are not in the panel; on a bad file nothing changes."""
        session = self._session
        checkpoint, unproven = session.checkpoint, session.settings.unproven
        if checkpoint is None:
            return
        try:
            found = zero_shot_genes(checkpoint, path, allow_unproven=unproven)
            if not found.genes:
                raise SpotsError(
                    f"{path.name} has no described gene that is not in the panel already; "
                    "choose another file."
                )
        except DkanError as error:
            session.say(str(error), alarming=True)
            return
        session.use_zero_shot(found)
        shown = ", ".join(found.symbols[:4]) + (", ..." if len(found.symbols) > 4 else "")
        session.say(f"{shown} added zero-shot; predict again to see their maps.")

    def refresh(self) -> None:
        session = self._session
        reason = ""
        if session.checkpoint is not None:
            reason = why_not(session.checkpoint, session.settings.unproven)
        self.add.setEnabled(not reason)
        self.add.setToolTip(reason or "Genes outside the panel, placed by their text")
        self.why_not.setText(f"off: {reason}")
        self.why_not.setVisible(bool(reason))
        if reason and session.zero_shot is not None:
            session.use_zero_shot(None)


def mark(session: Session, symbol: str) -> str:
    """What to know about a gene that is predicted from its text alone; "" for others."""
    checkpoint, new = session.checkpoint, session.zero_shot
    if checkpoint is None or new is None or symbol not in new.symbols:
        return ""
    return f"zero-shot, {expectation(checkpoint).sentence}"

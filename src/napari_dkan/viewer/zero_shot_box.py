"""Genes outside the panel, added by the text that describes them."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from ..errors import DkanError, SpotsError
from ..inference.zero_shot import read_zero_shot_expectation, explain_zero_shot_unavailable, load_zero_shot_genes
from .links import SignalConnections
from .session import ViewerSession


class ZeroShotBox(QWidget):
    """A button for a gene file; off, with the reason, where the card has no proof of it."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self.add_button = QPushButton("Add genes by description...")
        self.reason_label = QLabel()
        self.reason_label.setWordWrap(True)
        self.reason_label.setEnabled(False)  # grey, as the button it explains
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.add_button)
        layout.addWidget(self.reason_label)
        self.add_button.clicked.connect(self._choose_file)
        connections.connect(self.refresh, session.checkpoint_changed, session.settings_changed)
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
            found = load_zero_shot_genes(checkpoint, path, allow_unproven=unproven)
            if not found.genes:
                raise SpotsError(
                    f"{path.name} has no described gene that is not in the panel already; "
                    "choose another file."
                )
        except DkanError as error:
            session.show_message(str(error), warning=True)
            return
        session.set_zero_shot_genes(found)
        shown = ", ".join(found.symbols[:4]) + (", ..." if len(found.symbols) > 4 else "")
        session.show_message(f"{shown} added zero-shot; predict again to see their maps.")

    def refresh(self) -> None:
        session = self._session
        reason = ""
        if session.checkpoint is not None:
            reason = explain_zero_shot_unavailable(session.checkpoint, session.settings.unproven)
        self.add_button.setEnabled(not reason)
        self.add_button.setToolTip(reason or "Genes outside the panel, placed by their text")
        self.reason_label.setText(f"off: {reason}")
        self.reason_label.setVisible(bool(reason))
        if reason and session.zero_shot is not None:
            session.set_zero_shot_genes(None)


def zero_shot_note(session: ViewerSession, symbol: str) -> str:
    """What to know about a gene that is predicted from its text alone; "" for others."""
    checkpoint, new = session.checkpoint, session.zero_shot
    if checkpoint is None or new is None or symbol not in new.symbols:
        return ""
    return f"zero-shot, {read_zero_shot_expectation(checkpoint).summary}"

"""Genes outside the panel, added by their description, and what is expected of them."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from ....errors import DkanError, SpotsError
from ....inference.zero_shot_genes import (
    explain_zero_shot_unavailable,
    load_zero_shot_genes,
    read_zero_shot_expectation,
)
from ...session.viewer_session import ViewerSession
from ...widgets.signal_connections import SignalConnections


class ZeroShotBox(QWidget):
    """A button that adds genes from a file; disabled, with the reason, without an evaluation."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        self.add_button = QPushButton("Add genes by description...")
        self.reason_label = QLabel()
        self.reason_label.setWordWrap(True)
        self.reason_label.setEnabled(False)  # grey, like the button
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
        """Add the genes of a file that are not in the panel; errors are shown as a message."""
        session = self._session
        checkpoint, unproven = session.checkpoint, session.settings.allow_unproven_genes
        if checkpoint is None:
            return
        try:
            genes = load_zero_shot_genes(checkpoint, path, allow_unproven=unproven)
            if not genes.genes:
                raise SpotsError(
                    f"{path.name} has no described gene that is not in the panel already; "
                    "choose another file."
                )
        except DkanError as error:
            session.message.show(str(error), warning=True)
            return
        session.set_zero_shot_genes(genes)
        shown = ", ".join(genes.symbols[:4]) + (", ..." if len(genes.symbols) > 4 else "")
        session.message.show(f"{shown} added zero-shot; predict again to see their maps.")

    def refresh(self) -> None:
        """Follow checkpoint and settings."""
        session = self._session
        reason = ""
        if session.checkpoint is not None:
            reason = explain_zero_shot_unavailable(
                session.checkpoint, session.settings.allow_unproven_genes
            )
        self.add_button.setEnabled(not reason)
        self.add_button.setToolTip(reason or "Genes outside the panel, placed by their text")
        self.reason_label.setText(f"off: {reason}")
        self.reason_label.setVisible(bool(reason))
        if reason and session.zero_shot is not None:
            session.set_zero_shot_genes(None)


def zero_shot_note(session: ViewerSession, symbol: str) -> str:
    """Return the expected accuracy of a zero-shot gene; "" for other genes."""
    checkpoint, zero_shot = session.checkpoint, session.zero_shot
    if checkpoint is None or zero_shot is None or symbol not in zero_shot.symbols:
        return ""
    return f"zero-shot, {read_zero_shot_expectation(checkpoint).summary}"

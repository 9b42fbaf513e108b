"""Undo and redo, in a row that a panel has already."""

from __future__ import annotations

from qtpy.QtWidgets import QSizePolicy, QToolButton, QWidget

from ..layers.undo_recorder import get_undo_recorder
from ..session.shortcut_actions import connect_shortcut_changes, shortcut_label
from ..session.viewer_session import ViewerSession
from ..widgets.qt_utils import fill_column, make_row
from ..widgets.signal_connections import SignalConnections


class UndoButtons(QWidget):
    """Two small buttons, each shown while there is something to undo or redo."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        recorder = get_undo_recorder(session)
        self._stack = recorder.stack
        self.undo_button, self.redo_button = QToolButton(), QToolButton()
        for button, title, arrow, slot in (
            (self.undo_button, "Undo", "\N{ANTICLOCKWISE TOP SEMICIRCLE ARROW}", recorder.undo),
            (self.redo_button, "Redo", "\N{CLOCKWISE TOP SEMICIRCLE ARROW}", recorder.redo),
        ):
            button.setText(arrow)
            button.setAutoRaise(True)
            button.setAccessibleName(title)
            button.clicked.connect(lambda _=False, slot=slot: slot())
        fill_column(self, make_row(self.undo_button, self.redo_button))
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Preferred)
        connections.connect(self.refresh, self._stack.changed)
        connect_shortcut_changes(self.refresh, connections, "undo", "redo")
        self.refresh()

    def refresh(self) -> None:
        """Follow the stack."""
        for button, text, name in (
            (self.undo_button, self._stack.undo_text, "undo"),
            (self.redo_button, self._stack.redo_text, "redo"),
        ):
            keys = shortcut_label(name)
            button.setVisible(bool(text))
            title = button.accessibleName()
            button.setToolTip(f"{title}: {text}" + (f" ({keys})" if keys else ""))
        self.setVisible(bool(self._stack.undo_text or self._stack.redo_text))

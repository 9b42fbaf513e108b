"""Undo and redo of what the user changed.

Lists, and not Qt's undo stack: who owns its commands, Python or C++, is undecided in PySide6, and
a closed window's commands were freed twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from psygnal import Signal

if TYPE_CHECKING:
    from .viewer_session import ViewerSession


MAX_CHANGES = 50
MAX_BYTES = 1 << 30  # of deleted maps and earlier shapes, which only the stack holds


class Change(Protocol):
    """Something that the user changed and that can be changed back.

    Attributes
    ----------
    text : str
        As in "Undone: delete Stroma."
    nbytes : int
        Memory that the change holds.
    """

    @property
    def text(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    def undo(self) -> bool:
        """Change back; return False, having changed nothing, if that is no longer possible."""
        ...

    def redo(self) -> bool:
        """Change again; return as `undo`."""
        ...


class UndoStack:
    """The changes of one session, the last one on top; at most `MAX_CHANGES` and `MAX_BYTES`.

    Attributes
    ----------
    changed : Signal
    """

    changed = Signal()

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._done: list[Change] = []
        self._undone: list[Change] = []  # the next one to do again last

    @property
    def undo_text(self) -> str:
        """What `undo` changes back; empty if there is nothing."""
        return self._done[-1].text if self._done else ""

    @property
    def redo_text(self) -> str:
        """What `redo` changes again; empty if there is nothing."""
        return self._undone[-1].text if self._undone else ""

    def push(self, change: Change) -> None:
        """Add a change that the user has just made."""
        self._undone.clear()
        kept = [change]  # the newest first
        held = change.nbytes
        for older in reversed(self._done[1 - MAX_CHANGES :]):
            held += older.nbytes
            if held > MAX_BYTES:
                break
            kept.append(older)
        self._done = kept[::-1]
        self.changed.emit()

    def undo(self) -> None:
        """Change the last change back and say so; those no longer possible are left out."""
        while self._done:
            change = self._done.pop()
            if change.undo():
                self._undone.append(change)
                self._report(f"Undone: {change.text}.")
                return
        self._report("Nothing to undo.")

    def redo(self) -> None:
        """Change again what was changed back last and say so."""
        while self._undone:
            change = self._undone.pop()
            if change.redo():
                self._done.append(change)
                self._report(f"Done again: {change.text}.")
                return
        self._report("Nothing to do again.")

    def _report(self, text: str) -> None:
        self._session.message.show(text)
        self._session.viewer.status = text  # in view where no panel is
        self.changed.emit()

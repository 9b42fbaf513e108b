"""Undo and redo of what the user changed, on Qt's undo stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from psygnal import Signal
from qtpy.QtGui import QUndoCommand, QUndoStack  # type: ignore[attr-defined]

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


class _Command(QUndoCommand):  # type: ignore[misc]
    """Runs a change for Qt; one that is no longer possible is obsolete, which Qt removes."""

    def __init__(self, change: Change) -> None:
        super().__init__(change.text)
        self.change: Change | None = change
        self._is_pushed = False

    @property
    def nbytes(self) -> int:
        return 0 if self.change is None else self.change.nbytes

    def drop(self) -> None:
        """Free the memory of the change."""
        self.change = None
        self.setObsolete(True)

    def undo(self) -> None:
        if self.change is not None and not self.change.undo():
            self.drop()

    def redo(self) -> None:
        if not self._is_pushed:  # Qt calls this first for what the user has done already
            self._is_pushed = True
        elif self.change is not None and not self.change.redo():
            self.drop()


class UndoStack:
    """The changes of one session, the last one on top; at most `MAX_CHANGES` and `MAX_BYTES`.

    Attributes
    ----------
    changed : Signal
    """

    changed = Signal()

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._stack = QUndoStack()
        self._stack.setUndoLimit(MAX_CHANGES)

    @property
    def undo_text(self) -> str:
        """What `undo` changes back; empty if there is nothing."""
        return self._stack.undoText()

    @property
    def redo_text(self) -> str:
        """What `redo` changes again; empty if there is nothing."""
        return self._stack.redoText()

    def push(self, change: Change) -> None:
        """Add a change that the user has just made."""
        self._stack.push(_Command(change))
        held = 0
        for index in reversed(range(self._stack.count())):
            command = self._stack.command(index)
            assert isinstance(command, _Command)
            held += command.nbytes
            if held > MAX_BYTES and index < self._stack.count() - 1:
                command.drop()
        self.changed.emit()

    def undo(self) -> None:
        """Change the last change back and say so."""
        while text := self.undo_text:
            count = self._stack.count()
            self._stack.undo()
            if self._stack.count() == count:
                return self._report(f"Undone: {text}.")
        self._report("Nothing to undo.")

    def redo(self) -> None:
        """Change again what was changed back last and say so."""
        while text := self.redo_text:
            count = self._stack.count()
            self._stack.redo()
            if self._stack.count() == count:
                return self._report(f"Done again: {text}.")
        self._report("Nothing to do again.")

    def _report(self, text: str) -> None:
        self._session.message.show(text)
        self._session.viewer.status = text  # in view where no panel is
        self.changed.emit()

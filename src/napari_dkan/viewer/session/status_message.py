"""The message line of the Predict panel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psygnal import Signal

from ...errors import DkanError


class StatusMessage:
    """One message for the user; a new one replaces it.

    Attributes
    ----------
    text : str
        Empty if there is no message.
    is_warning : bool
    changed : Signal
    """

    changed = Signal()

    def __init__(self) -> None:
        self.text = ""
        self.is_warning = False

    def show(self, text: str, warning: bool = False) -> None:
        """Replace the message."""
        self.text, self.is_warning = text, warning
        self.changed.emit()

    def add_warning(self, text: str) -> None:
        """Show a warning below the one that is there, so that both are seen."""
        lines = self.text.splitlines() if self.is_warning else []
        self.show("\n".join([*(line for line in lines if line != text), text]), warning=True)

    def clear(self) -> None:
        """Remove the message."""
        self.show("")

    @contextmanager
    def report_errors(self) -> Iterator[None]:
        """Show a DkanError of the block as a warning instead of raising it."""
        try:
            yield
        except DkanError as error:
            self.show(str(error), warning=True)

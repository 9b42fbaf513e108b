"""A row of controls that runs a background job and shows its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtWidgets import QLabel, QPushButton, QWidget

from ..worker import JobFailure, JobRunner
from .fold_section import reveal_answer
from .qt_utils import fill_column, make_progress_bar, make_row


class StatusLabel(QLabel):
    """A text that takes no room while it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.hide()

    def setText(self, text: str) -> None:
        """Show a text; none hides the label."""
        super().setText(text)
        self.setVisible(bool(text))


class JobRow(QWidget):
    """Widgets in a row, one of which is the button of a job, and the status below.

    Parameters
    ----------
    name
        Of the job, for its `JobRunner`.
    button
        Disabled while the job runs.
    widgets
        All widgets of the row with their stretch, the button among them.
    """

    def __init__(
        self, name: str, button: QPushButton, *widgets: QWidget | tuple[QWidget, int]
    ) -> None:
        super().__init__()
        self._runner = JobRunner(name)
        self.button = button
        self.progress_bar = make_progress_bar()
        self.progress_bar.hide()
        self.status_label = StatusLabel()
        fill_column(self, make_row(*widgets), self.progress_bar, self.status_label)

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def start(
        self,
        job: Callable[[], Iterator[Any]],
        on_item: Callable[[Any], None],
        status: str = "",
        on_end: Callable[[JobFailure | None], None] = lambda failure: None,
    ) -> None:
        """Run a job; a failure is written to the status. What comes of it is scrolled to.

        Parameters
        ----------
        job
            Runs in a worker thread.
        on_item, on_end
            Called in the GUI thread.
        status
            Text while the job runs.
        """

        def end(failure: JobFailure | None) -> None:
            self.button.setEnabled(True)
            if failure is not None:
                self.status_label.setText(failure.message)
            on_end(failure)
            reveal_result()

        self.status_label.setText(status)
        self.button.setEnabled(False)
        reveal_result = reveal_answer(self)
        self._runner.start(job, on_item, end)

    def cancel(self, status: str = "") -> None:
        """Stop the job, if one runs, and replace the status."""
        self.stop()
        self.status_label.setText(status)
        self.button.setEnabled(True)

    def stop(self) -> None:
        """Stop the job and change nothing on the screen, for a widget that is being closed."""
        self._runner.cancel()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait for the worker thread; return whether it has ended."""
        return self._runner.wait(seconds)

"""A progress bar that moves a few times a second, however often a job reports."""

from __future__ import annotations

import time

from qtpy.QtWidgets import QProgressBar

PROGRESS_SECONDS = 0.25  # between two values


class PacedProgressBar(QProgressBar):
    """Shows the beginning and the end of each stage at once, and what lies between at times.

    Qt repaints a progress bar within the call that changes it, and with a canvas of OpenGL in it
    that composes the whole window, which takes longer than the batch that is reported.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_change, self._shown = 0.0, ("", 0)

    def show_progress(self, done: int, total: int, stage: str = "") -> bool:
        """Show progress if it is due.

        Parameters
        ----------
        done : int
        total : int
            0: an animation for an unknown total.
        stage : str
            Another stage or total is shown at once.

        Returns
        -------
        bool
            Whether it is shown; texts beside the bar can wait for it, too.
        """
        now, is_end = time.perf_counter(), done in (0, total)
        if now < self._next_change and not is_end and (stage, total) == self._shown:
            return False
        self._next_change, self._shown = now + PROGRESS_SECONDS, (stage, total)
        self.setRange(0, total)
        self.setValue(done)
        return True

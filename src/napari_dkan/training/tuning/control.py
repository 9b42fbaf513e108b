"""What a person may ask of a running fine-tuning, from another thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag

from .events import Event, Paused, Resumed


class Control:
    """Pause, resume, stop, and the gene whose map is wanted."""

    def __init__(self) -> None:
        self._going, self._stopped = Flag(), Flag()
        self._going.set()
        self.gene: str | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def pause(self) -> None:
        """It waits after the epoch it is in."""
        if not self.stopped:
            self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def stop(self) -> None:
        """It ends after the epoch it is in, paused or not; the best so far is kept."""
        self._stopped.set()
        self._going.set()

    def hold(self, on_event: Callable[[Event], None]) -> None:
        """Called between epochs: waits for as long as it is paused."""
        if self._going.is_set():
            return
        on_event(Paused())
        self._going.wait()
        if not self.stopped:
            on_event(Resumed())

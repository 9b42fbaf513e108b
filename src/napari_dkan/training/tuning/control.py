"""What a person may ask of a running fine-tuning, from another thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event as Flag

from .events import FinetuneEvent, FinetunePaused, FinetuneResumed


class FinetuneControl:
    """Pause, resume, stop, and the gene whose map is wanted."""

    def __init__(self) -> None:
        self._running, self._stopped = Flag(), Flag()
        self._running.set()
        self.requested_gene: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def pause(self) -> None:
        """It waits after the epoch it is in."""
        if not self.is_stopped:
            self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        """It ends after the epoch it is in, paused or not; the best so far is kept."""
        self._stopped.set()
        self._running.set()

    def wait_while_paused(self, on_event: Callable[[FinetuneEvent], None]) -> None:
        """Called between epochs: waits for as long as it is paused."""
        if self._running.is_set():
            return
        on_event(FinetunePaused())
        self._running.wait()
        if not self.is_stopped:
            on_event(FinetuneResumed())

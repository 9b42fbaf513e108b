"""Background jobs: one job at a time per runner, outside the GUI thread.

Results of a cancelled job are never delivered. Jobs are generators that yield per batch. napari's
workers turn a RuntimeError of a generator into a silent return value, and torch's errors are
RuntimeErrors. So every error is caught here and delivered as a value.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from napari.qt.threading import WorkerBase, create_worker
from qtpy.QtCore import QThreadPool

from ..errors import DkanError

log = logging.getLogger(__name__)


# Qt starts as many threads as there are cores; a click must not wait for sleeping jobs.
MIN_THREADS = 12

_runners: WeakSet[JobRunner] = WeakSet()


@dataclass(frozen=True)
class JobFailure:
    """A job ended with an error; ``message`` is shown to the user."""

    message: str
    error: Exception


@dataclass(frozen=True)
class _JobFinished:
    """The job ended normally."""


class JobRunner:
    """Runs one job at a time; starting a job cancels the previous one.

    Parameters
    ----------
    name : str
        For debugging.
    background : bool
        Whether its jobs rest while a job that somebody waits for runs (`is_foreground_busy`).
    """

    def __init__(self, name: str, *, background: bool = False) -> None:
        self.name = name
        self._is_background = background
        self._stop_event: threading.Event | None = None
        self._handlers: list[Any] = []  # on_item and on_end of the running job
        # Each worker and an event that is set when its generator has ended.
        self._worker_threads: list[tuple[WorkerBase, threading.Event]] = []
        if not _runners:  # registered after Qt's handler, so it runs first
            atexit.register(_stop_all_runners)
            pool = QThreadPool.globalInstance()
            pool.setMaxThreadCount(max(MIN_THREADS, pool.maxThreadCount()))
        _runners.add(self)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._stop_event is not None

    def is_foreground_busy(self) -> bool:
        """Return whether another runner has a job that is not in the background. For any thread.

        Background jobs do not wait for one another: two of them would wait forever.
        """
        others = [runner for runner in list(_runners) if runner is not self]
        return any(runner.busy and not runner._is_background for runner in others)

    def start(
        self,
        job: Callable[[], Iterator[Any]],
        on_item: Callable[[Any], None],
        on_end: Callable[[JobFailure | None], None] = lambda failure: None,
    ) -> None:
        """Run ``job()`` in a thread.

        Parameters
        ----------
        job : callable
            Returns an iterator; it is cancelled between two items.
        on_item, on_end : callable
            Called in the GUI thread with each item, and at the end with the failure or None.
            Neither is called after `cancel`.
        """
        self.cancel()
        stop, wound_down = threading.Event(), threading.Event()
        self._stop_event = stop
        # Qt never deletes workers, so they must not own handlers, which may own a checkpoint.
        handlers: list[Any] = [on_item, on_end]
        self._handlers = handlers
        self._worker_threads = [t for t in self._worker_threads if not _has_ended(*t)]

        def receive(item: Any) -> None:
            if self._stop_event is not stop:  # a late result of a cancelled job
                return
            if isinstance(item, JobFailure | _JobFinished):
                self._stop_event = None
                finish = handlers[1]
                handlers.clear()
                finish(item if isinstance(item, JobFailure) else None)
            else:
                handlers[0](item)

        items = _run_guarded(job, stop, wound_down)

        def run() -> Iterator[Any]:
            yield from items

        worker = create_worker(run, _start_thread=False)
        self._worker_threads.append((worker, wound_down))
        worker.yielded.connect(receive)
        # napari leaves the generator of a worker that it quits at its last yield.
        worker.finished.connect(lambda: items.close())
        worker.start()

    def cancel(self) -> None:
        """Cancel the running job; its thread ends at its next yield."""
        if self._stop_event is not None:
            self._stop_event.set()
            self._stop_event = None
            self._handlers.clear()

    def wait(self, seconds: float = 10.0) -> bool:
        """Block until all threads have ended; return False after the timeout."""
        end = time.monotonic() + seconds
        while not all(_has_ended(*t) for t in self._worker_threads):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Cancel the running job and wait for its thread."""
        self.cancel()
        self.wait()


def _has_ended(worker: WorkerBase, wound_down: threading.Event) -> bool:
    """napari quits its workers when the window closes, without an end of their generators."""
    return wound_down.is_set() or (worker.abort_requested and not worker.is_running)


def _stop_all_runners() -> None:
    """At exit: end all threads before Qt deletes the objects that they report to."""
    for runner in list(_runners):
        runner.cancel()
    QThreadPool.globalInstance().waitForDone(10_000)


def _run_guarded(
    job: Callable[[], Iterator[Any]], stop: threading.Event, wound_down: threading.Event
) -> Generator[Any, None, None]:
    try:
        items = iter(job())
        try:
            for item in items:
                if stop.is_set():
                    return
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        yield _JobFinished()
    except DkanError as error:
        yield JobFailure(str(error), error)
    except Exception as error:
        # Any other error ends this job, not the application.
        log.exception("job failed")
        kind = type(error).__name__
        yield JobFailure(
            f"This should not have happened ({kind}: {error}); please report it.", error
        )
    finally:
        wound_down.set()

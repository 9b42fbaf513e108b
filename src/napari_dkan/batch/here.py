"""Many slides on this machine: a process for each device, so that a crash costs one slide."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from ..errors import DkanError
from .events import Ended, Event
from .job import Outcome, SlideJob
from .places import Place
from .worker import READY, serve

PATIENCE = 5.0  # seconds that a worker may take to tidy up and end


class _Worker:
    """A process and the job it has in hand; index None while it waits for one."""

    def __init__(self, place: Place) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.place, self.ready = place, False
        self.index: int | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, place), name=f"dkan-{place.name}", daemon=True
        )
        self.process.start()
        theirs.close()  # so that its end is seen when the process is gone

    def give(self, index: int, job: SlideJob, again: bool) -> None:
        self.index = index
        with suppress(OSError):  # it has just died, which its pipe tells next
            self.pipe.send((index, job, again))

    def end(self) -> None:
        """Its pipe is closed: what waits for a job ends by that, what has one is told to."""
        if self.index is not None or not self.ready:
            self.process.terminate()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_here(
    jobs: Sequence[SlideJob], places: Sequence[Place], retry: int = 1, again: bool = False
) -> Generator[Event, None, None]:
    """Do the jobs; yields what happens, an Ended for each job exactly once.

    retry : how often a job is tried again whose process died. again : also do what stands.
    Whoever stops iterating ends the workers, and no half result is left.

    Raises DkanError when no worker process can be started.
    """
    waiting, deaths = deque(range(len(jobs))), Counter[int]()
    workers = [_Worker(place) for place in places]
    left = len(jobs)
    try:
        while left:
            for worker in workers:
                if worker.ready and worker.index is None and waiting:
                    index = waiting.popleft()
                    worker.give(index, jobs[index], again)
            if not workers:
                raise DkanError(
                    "No worker process could be started; `napari-dkan doctor` may say why."
                )
            speaking = wait([w.pipe for w in workers])
            for worker in [w for w in workers if w.pipe in speaking]:
                said = _hear(worker.pipe)
                if isinstance(said, str):
                    worker.ready = said == READY
                elif isinstance(said, Ended):
                    worker.index, left = None, left - 1
                    yield said
                elif said is not None:
                    yield said
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.end()
                    if worker.ready:  # else another one would not start either
                        workers.append(_Worker(worker.place))
                    lost = worker.index
                    if lost is None:
                        continue
                    deaths[lost] += 1
                    if deaths[lost] <= retry:
                        waiting.append(lost)
                    else:
                        left -= 1
                        yield Ended(lost, _died(jobs[lost], worker, deaths[lost]))
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.end()


def _hear(pipe: Connection) -> Event | str | None:
    """What a worker says, None when it is dead."""
    try:
        said: Event | str = pipe.recv()
    except (EOFError, OSError):
        return None
    return said


def _died(job: SlideJob, worker: _Worker, times: int) -> Outcome:
    code = worker.process.exitcode or 0
    how = f"with code {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as a system short of memory does"
    often = "" if times == 1 else f" {times} times"
    return Outcome(
        job.slide,
        job.out,
        error=f"The process that read {job.name} was ended{often} ({how}); predict it alone, "
        "or take fewer --workers.",
    )

"""Many slides on a Dask cluster: the same jobs, sent to its workers.

A task is a job and gives its outcome, so a worker that dies costs nothing but time: the scheduler
gives its tasks to others, and what already stands on the shared disk is found there.
"""

from __future__ import annotations

import queue
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import DkanError
from .events import Ended, Event, Tick
from .job import Outcome, SlideJob

if TYPE_CHECKING:
    from distributed import Client, Future

ANSWER = 20  # seconds that a scheduler may take to answer
EVERY = 1.0  # seconds between two ticks of one slide; the scheduler passes them on

_stopped: set[str] = set()  # in a worker: runs that nobody waits for any more


def run_on_cluster(
    jobs: Sequence[SlideJob], address: str, retry: int = 1, again: bool = False
) -> Generator[Event, None, None]:
    """Do the jobs on the cluster of the scheduler at ``address``.

    Yields what happens, an Ended for each job exactly once. Slides, checkpoints and results have
    to have the same paths on all of its machines. retry : how often a task that fails is tried
    again; how many deaths of workers a task survives is the scheduler's setting
    (distributed.scheduler.allowed-failures, 3 unless set). Whoever stops iterating cancels what
    is left.

    Raises DkanError when the package is missing or no scheduler answers.
    """
    client = _client(address)
    run = f"napari-dkan-{uuid.uuid4().hex[:12]}"
    said: queue.SimpleQueue[Tick | tuple[int, Future]] = queue.SimpleQueue()
    futures: list[Future] = []
    left = set(range(len(jobs)))
    try:
        client.subscribe_topic(run, lambda event: said.put(Tick(*event[1])))
        for index, job in enumerate(jobs):
            future = client.submit(
                on_worker, index, job, run, again, key=f"{run}-{index}", pure=False, retries=retry
            )
            future.add_done_callback(lambda done, i=index: said.put((i, done)))
            futures.append(future)
        while left:
            try:
                heard = said.get(timeout=1)  # so that Ctrl-C is heard on every system
            except queue.Empty:
                continue
            if isinstance(heard, Tick):
                if heard.index in left:
                    yield heard
                continue
            index, future = heard
            if index in left:
                left.remove(index)
                yield Ended(index, _outcome(jobs[index], future, address))
                future.release()
    finally:
        if left:
            with suppress(Exception):  # the scheduler may be what is gone
                client.cancel([futures[i] for i in left if i < len(futures)], force=True)
                client.run(stop, run, wait=False)
        client.close()


def on_worker(index: int, job: SlideJob, run: str, again: bool) -> Outcome:
    """The task: do one job, in a worker of the cluster."""
    import torch
    from distributed import get_worker

    from ..inference.device import pick_device
    from .task import Stopped, attempt
    from .worker import ticking

    worker = get_worker()

    def send(tick: Tick) -> None:
        if run in _stopped:
            raise Stopped
        worker.log_event(run, (tick.index, tick.done, tick.total, tick.reading))

    with suppress(DkanError):  # a device that is not there is the job's to tell
        if pick_device(job.device).type == "cpu":
            torch.set_num_threads(1)  # as the workers of one machine, so that values are the same
    return attempt(job, ticking(index, send, EVERY), again)


async def stop(run: str) -> None:
    """In a worker: what it still does of a run is to end at the next batch."""
    _stopped.add(run)


def _client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise DkanError(
            "A Dask cluster needs the package distributed: pip install 'napari-dkan[cluster]'."
        ) from None
    try:
        return Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DkanError(
            f"No Dask scheduler answers at {address} ({said}); give the address that "
            "`dask scheduler` printed, as tcp://host:8786."
        ) from None


def _outcome(job: SlideJob, future: Future, address: str) -> Outcome:
    if future.status == "finished":
        try:
            outcome: Outcome = future.result()
            return outcome
        except Exception as error:  # lost on its way, whatever Dask calls that
            return Outcome(job.slide, job.out, error=f"{type(error).__name__}: {error}")
    if future.status != "error":
        return Outcome(
            job.slide,
            job.out,
            error=f"The scheduler at {address} is gone; start it and give the same command.",
        )
    raised = future.exception()
    times = getattr(raised, "allowed_failures", None)
    if times is not None:  # a KilledWorker
        return Outcome(
            job.slide,
            job.out,
            error=f"{times + 1} workers died while they had {job.name}; predict it alone, "
            "or give the workers more memory.",
        )
    return Outcome(job.slide, job.out, error=f"{type(raised).__name__}: {raised}")

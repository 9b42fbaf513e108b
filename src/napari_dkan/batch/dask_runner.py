"""Run jobs on a Dask cluster."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import DkanError
from .slide_job import JobEvent, JobFinished, JobOutcome, JobProgress, SlideJob

if TYPE_CHECKING:
    from distributed import Client, Future


CONNECT_TIMEOUT_S = 20  # seconds that a scheduler may take to answer
CLUSTER_PROGRESS_INTERVAL_S = (
    1.0  # seconds between two ticks of one slide; the scheduler passes them on
)

_cancelled_runs: set[str] = set()  # in a worker: runs that nobody waits for any more


def run_on_dask(
    jobs: Sequence[SlideJob], address: str, max_retries: int = 1, overwrite: bool = False
) -> Generator[JobEvent, None, None]:
    """Do the jobs on the cluster of the scheduler at ``address``.

    Yields what happens, an Ended for each job exactly once. Slides, checkpoints and results have
    to have the same paths on all of its machines. retry : how often a task that fails is tried
    again; how many deaths of workers a task survives is the scheduler's setting
    (distributed.scheduler.allowed-failures, 3 unless set). Whoever stops iterating cancels what
    is left.

    Raises DkanError when the package is missing or no scheduler answers.
    """
    client = _connect_client(address)
    run = f"napari-dkan-{uuid.uuid4().hex[:12]}"
    said: queue.SimpleQueue[JobProgress | tuple[int, Future]] = queue.SimpleQueue()
    futures: list[Future] = []
    left = set(range(len(jobs)))
    try:
        client.subscribe_topic(run, lambda event: said.put(JobProgress(*event[1])))
        for index, job in enumerate(jobs):
            future = client.submit(
                run_job_on_worker,
                index,
                job,
                run,
                overwrite,
                key=f"{run}-{index}",
                pure=False,
                retries=max_retries,
            )
            future.add_done_callback(lambda done, i=index: said.put((i, done)))
            futures.append(future)
        while left:
            try:
                heard = said.get(timeout=1)  # so that Ctrl-C is heard on every system
            except queue.Empty:
                continue
            if isinstance(heard, JobProgress):
                if heard.index in left:
                    yield heard
                continue
            index, future = heard
            if index in left:
                left.remove(index)
                yield JobFinished(index, _outcome_from_future(jobs[index], future, address))
                future.release()
    finally:
        if left:
            with suppress(Exception):  # the scheduler may be what is gone
                client.cancel([futures[i] for i in left if i < len(futures)], force=True)
                client.run(cancel_run, run, wait=False)
        client.close()


def run_job_on_worker(index: int, job: SlideJob, run_id: str, overwrite: bool) -> JobOutcome:
    """The task: do one job, in a worker of the cluster."""
    import torch
    from distributed import get_worker

    from ..inference.device import pick_device
    from .batch_worker import JobCancelled, create_progress_callback, run_job

    worker = get_worker()

    def send(tick: JobProgress) -> None:
        if run_id in _cancelled_runs:
            raise JobCancelled
        worker.log_event(run_id, (tick.index, tick.done, tick.total, tick.is_reading_context))

    with suppress(DkanError):  # a device that is not there is the job's to tell
        if pick_device(job.device).type == "cpu":
            torch.set_num_threads(1)  # as the workers of one machine, so that values are the same
    return run_job(
        job, create_progress_callback(index, send, CLUSTER_PROGRESS_INTERVAL_S), overwrite
    )


async def cancel_run(run_id: str) -> None:
    """In a worker: what it still does of a run is to end at the next batch."""
    _cancelled_runs.add(run_id)


def _connect_client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise DkanError(
            "A Dask cluster needs the package distributed: pip install 'napari-dkan[cluster]'."
        ) from None
    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DkanError(
            f"No Dask scheduler answers at {address} ({said}); give the address that "
            "`dask scheduler` printed, as tcp://host:8786."
        ) from None


def _outcome_from_future(job: SlideJob, future: Future, address: str) -> JobOutcome:
    if future.status == "finished":
        try:
            outcome: JobOutcome = future.result()
            return outcome
        except Exception as error:  # lost on its way, whatever Dask calls that
            return JobOutcome(job.slide, job.out, error=f"{type(error).__name__}: {error}")
    if future.status != "error":
        return JobOutcome(
            job.slide,
            job.out,
            error=f"The scheduler at {address} is gone; start it and give the same command.",
        )
    raised = future.exception()
    times = getattr(raised, "allowed_failures", None)
    if times is not None:  # a KilledWorker
        return JobOutcome(
            job.slide,
            job.out,
            error=f"{times + 1} workers died while they had {job.name}; predict it alone, "
            "or give the workers more memory.",
        )
    return JobOutcome(job.slide, job.out, error=f"{type(raised).__name__}: {raised}")

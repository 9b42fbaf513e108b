"""Run jobs on a Dask cluster."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from ..errors import DkanError
from .slide_job import JobEvent, JobFinished, JobOutcome, JobProgress, SlideJob

if TYPE_CHECKING:
    from distributed import Client, Future


CONNECT_TIMEOUT_S = 20  # until the scheduler answers
CLUSTER_PROGRESS_INTERVAL_S = 1.0  # progress of a slide goes through the scheduler

_cancelled_runs: set[str] = set()  # in a worker


def run_on_dask(
    jobs: Sequence[SlideJob], address: str, max_retries: int = 1, overwrite: bool = False
) -> Generator[JobEvent, None, None]:
    """Run the jobs on a Dask cluster.

    Slides, checkpoints and results need the same paths on all machines of the cluster. Closing
    the generator cancels the jobs that are not finished.

    Parameters
    ----------
    address
        Of the scheduler.
    max_retries
        How often a task that fails is repeated. How many crashes of workers a task survives is
        the scheduler's setting distributed.scheduler.allowed-failures (default 3).
    overwrite
        Also run jobs that have a result.

    Yields
    ------
    JobEvent
        Progress, and JobFinished exactly once for each job.

    Raises
    ------
    DkanError
        The package is missing or no scheduler answers.
    """
    client: Any = _connect_client(address)
    run_id = f"napari-dkan-{uuid.uuid4().hex[:12]}"
    messages: queue.SimpleQueue[JobProgress | tuple[int, Future[Any]]] = queue.SimpleQueue()
    futures: list[Future[Any]] = []
    pending = set(range(len(jobs)))
    try:
        client.subscribe_topic(run_id, lambda event: messages.put(JobProgress(*event[1])))
        for index, job in enumerate(jobs):
            future: Any = client.submit(
                run_job_on_worker,
                index,
                job,
                run_id,
                overwrite,
                key=f"{run_id}-{index}",
                pure=False,
                retries=max_retries,
            )
            future.add_done_callback(lambda done, i=index: messages.put((i, done)))
            futures.append(future)
        while pending:
            try:
                message = messages.get(timeout=1)  # the timeout lets Ctrl-C through on Windows
            except queue.Empty:
                continue
            if isinstance(message, JobProgress):
                if message.index in pending:
                    yield message
                continue
            index, future = message
            if index in pending:
                pending.remove(index)
                yield JobFinished(index, _outcome_from_future(jobs[index], future, address))
                future.release()
    finally:
        if pending:
            with suppress(Exception):  # the scheduler may have ended
                client.cancel([futures[i] for i in pending if i < len(futures)], force=True)
                client.run(cancel_run, run_id, wait=False)
        client.close()


def run_job_on_worker(index: int, job: SlideJob, run_id: str, overwrite: bool) -> JobOutcome:
    """Run one job in a worker of the cluster."""
    import torch
    from distributed import get_worker

    from ..inference.device_choice import pick_device
    from .batch_worker import JobCancelled, create_progress_callback, run_job

    worker = get_worker()

    def send(progress: JobProgress) -> None:
        if run_id in _cancelled_runs:
            raise JobCancelled
        worker.log_event(run_id, astuple(progress))

    with suppress(DkanError):  # run_job reports a missing device
        if pick_device(job.device).type == "cpu":
            torch.set_num_threads(1)  # as in local workers, so that the values are the same
    return run_job(
        job, create_progress_callback(index, send, CLUSTER_PROGRESS_INTERVAL_S), overwrite
    )


async def cancel_run(run_id: str) -> None:
    """In a worker, end the jobs of a run at their next progress event."""
    _cancelled_runs.add(run_id)


def _connect_client(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise DkanError(
            "A Dask cluster needs the package distributed: pip install 'napari-dkan[cluster]'."
        ) from None
    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DkanError(
            f"No Dask scheduler answers at {address} ({reason}); give the address that "
            "`dask scheduler` printed, as tcp://host:8786."
        ) from None


def _outcome_from_future(job: SlideJob, future: Any, address: str) -> JobOutcome:
    def failure(message: str) -> JobOutcome:
        return JobOutcome(job.slide, job.out, error=message)

    if future.status == "finished":
        try:
            outcome: JobOutcome = future.result()
            return outcome
        except Exception as error:  # the result was lost on its way; Dask raises various types
            return failure(f"{type(error).__name__}: {error}")
    if future.status != "error":
        return failure(f"The scheduler at {address} is gone; start it and give the same command.")
    failure_cause = future.exception()
    allowed_failures = getattr(failure_cause, "allowed_failures", None)
    if allowed_failures is not None:  # a KilledWorker
        return failure(
            f"{allowed_failures + 1} workers died while they had {job.name}; predict it alone, "
            "or give the workers more memory."
        )
    return failure(f"{type(failure_cause).__name__}: {failure_cause}")

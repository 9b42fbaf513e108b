"""Run jobs on this machine, in one process per worker.

multiprocessing with pipes, not ProcessPoolExecutor: when a worker process crashes, only its job
is repeated or fails, while the executor gives up every job.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from ..errors import DkanError
from .batch_worker import WORKER_READY, WorkerDevice, serve_jobs
from .slide_job import JobEvent, JobFinished, JobOutcome, SlideJob

STOP_TIMEOUT_S = 5.0  # until a worker has removed its temporary files and ended


class _WorkerProcess:
    """A worker process and the index of its job, None while it waits for one."""

    def __init__(self, worker_device: WorkerDevice) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.worker_device, self.is_ready = worker_device, False
        self.job_index: int | None = None
        self.pipe, child_end = context.Pipe()
        self.process = context.Process(
            target=serve_jobs,
            args=(child_end, worker_device),
            name=f"dkan-{worker_device.name}",
            daemon=True,
        )
        self.process.start()
        child_end.close()  # otherwise the pipe would stay open when the process ends

    def send_job(self, index: int, job: SlideJob, overwrite: bool) -> None:
        self.job_index = index
        with suppress(OSError):  # the process has ended; the next read of its pipe shows that
            self.pipe.send((index, job, overwrite))

    def stop(self) -> None:
        """End the process after its pipe was closed, which already ends an idle one."""
        if self.job_index is not None or not self.is_ready:
            self.process.terminate()
        self.process.join(STOP_TIMEOUT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_locally(
    jobs: Sequence[SlideJob],
    worker_devices: Sequence[WorkerDevice],
    max_retries: int = 1,
    overwrite: bool = False,
) -> Generator[JobEvent, None, None]:
    """Run the jobs in worker processes.

    Closing the generator ends the workers; no incomplete result remains.

    Parameters
    ----------
    worker_devices
        One process is started for each.
    max_retries
        How often a job is repeated after its process crashed.
    overwrite
        Also run jobs that have a result.

    Yields
    ------
    JobEvent
        Progress, and JobFinished exactly once for each job.

    Raises
    ------
    DkanError
        No worker process can be started.
    """
    waiting, crashes = deque(range(len(jobs))), Counter[int]()
    workers = [_WorkerProcess(device) for device in worker_devices]
    n_pending = len(jobs)
    try:
        while n_pending:
            for worker in workers:
                if worker.is_ready and worker.job_index is None and waiting:
                    index = waiting.popleft()
                    worker.send_job(index, jobs[index], overwrite)
            if not workers:
                raise DkanError(
                    "No worker process could be started; `napari-dkan doctor` may say why."
                )
            readable = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in readable]:
                message = _receive(worker.pipe)
                if isinstance(message, str):
                    worker.is_ready = message == WORKER_READY
                elif isinstance(message, JobFinished):
                    worker.job_index, n_pending = None, n_pending - 1
                    yield message
                elif message is not None:
                    yield message
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.stop()
                    if worker.is_ready:  # otherwise a new one would not start either
                        workers.append(_WorkerProcess(worker.worker_device))
                    lost_index = worker.job_index
                    if lost_index is None:
                        continue
                    crashes[lost_index] += 1
                    n_crashes = crashes[lost_index]
                    if n_crashes <= max_retries:
                        waiting.append(lost_index)
                    else:
                        n_pending -= 1
                        outcome = _create_crash_outcome(jobs[lost_index], worker, n_crashes)
                        yield JobFinished(lost_index, outcome)
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.stop()


def _receive(pipe: Connection) -> JobEvent | str | None:
    """Return the next message of a worker, None when its process has ended."""
    try:
        message: JobEvent | str = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _create_crash_outcome(job: SlideJob, worker: _WorkerProcess, n_crashes: int) -> JobOutcome:
    code = worker.process.exitcode or 0
    cause = f"with code {code}"
    if code < 0:
        cause = f"by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            cause += ", as a system short of memory does"
    times = "" if n_crashes == 1 else f" {n_crashes} times"
    error = (
        f"The process that read {job.name} was ended{times} ({cause}); predict it alone, "
        "or take fewer --workers."
    )
    return JobOutcome(job.slide, job.out, error=error)

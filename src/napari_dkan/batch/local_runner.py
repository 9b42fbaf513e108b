"""Run jobs on this machine in one process per worker."""

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

STOP_TIMEOUT_S = 5.0  # seconds that a worker may take to tidy up and end


class _WorkerProcess:
    """A process and the job it has in hand; index None while it waits for one."""

    def __init__(self, worker_device: WorkerDevice) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.worker_device, self.is_ready = worker_device, False
        self.job_index: int | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve_jobs,
            args=(theirs, worker_device),
            name=f"dkan-{worker_device.name}",
            daemon=True,
        )
        self.process.start()
        theirs.close()  # so that its end is seen when the process is gone

    def send_job(self, index: int, job: SlideJob, overwrite: bool) -> None:
        self.job_index = index
        with suppress(OSError):  # it has just died, which its pipe tells next
            self.pipe.send((index, job, overwrite))

    def stop(self) -> None:
        """Its pipe is closed: what waits for a job ends by that, what has one is told to."""
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
    """Do the jobs; yields what happens, an Ended for each job exactly once.

    retry : how often a job is tried again whose process died. again : also do what stands.
    Whoever stops iterating ends the workers, and no half result is left.

    Raises DkanError when no worker process can be started.
    """
    waiting, deaths = deque(range(len(jobs))), Counter[int]()
    workers = [_WorkerProcess(place) for place in worker_devices]
    left = len(jobs)
    try:
        while left:
            for worker in workers:
                if worker.is_ready and worker.job_index is None and waiting:
                    index = waiting.popleft()
                    worker.send_job(index, jobs[index], overwrite)
            if not workers:
                raise DkanError(
                    "No worker process could be started; `napari-dkan doctor` may say why."
                )
            speaking = wait([w.pipe for w in workers])
            for worker in [w for w in workers if w.pipe in speaking]:
                said = _receive(worker.pipe)
                if isinstance(said, str):
                    worker.is_ready = said == WORKER_READY
                elif isinstance(said, JobFinished):
                    worker.job_index, left = None, left - 1
                    yield said
                elif said is not None:
                    yield said
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.stop()
                    if worker.is_ready:  # else another one would not start either
                        workers.append(_WorkerProcess(worker.worker_device))
                    lost = worker.job_index
                    if lost is None:
                        continue
                    deaths[lost] += 1
                    if deaths[lost] <= max_retries:
                        waiting.append(lost)
                    else:
                        left -= 1
                        yield JobFinished(
                            lost, _create_crash_outcome(jobs[lost], worker, deaths[lost])
                        )
    finally:
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.stop()


def _receive(pipe: Connection) -> JobEvent | str | None:
    """What a worker says, None when it is dead."""
    try:
        said: JobEvent | str = pipe.recv()
    except (EOFError, OSError):
        return None
    return said


def _create_crash_outcome(job: SlideJob, worker: _WorkerProcess, n_crashes: int) -> JobOutcome:
    code = worker.process.exitcode or 0
    how = f"with code {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as a system short of memory does"
    often = "" if n_crashes == 1 else f" {n_crashes} times"
    return JobOutcome(
        job.slide,
        job.out,
        error=f"The process that read {job.name} was ended{often} ({how}); predict it alone, "
        "or take fewer --workers.",
    )

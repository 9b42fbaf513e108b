"""Batch workers: assign devices, run a job, serve jobs from a pipe."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ..errors import DkanError
from .slide_job import PROGRESS_INTERVAL_S, JobFinished, JobOutcome, JobProgress, SlideJob

if TYPE_CHECKING:
    from ..inference.prediction_progress import PredictionUpdate


VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
CPU_WORKER_BYTES = 2 * 2**30  # of memory that a worker on the CPU may come to need


@dataclass(frozen=True)
class WorkerDevice:
    """One worker's device.

    name : what a person calls it. device : as the worker itself sees it: with only its own GPU in
    sight, that is the first. environment : set before torch is loaded. threads : of torch.
    """

    name: str
    device: str
    n_threads: int
    environment: Mapping[str, str] = field(default_factory=dict)


def assign_worker_devices(
    available: Sequence[str],
    requested: Sequence[str] | None,
    n_workers: int | None,
    n_jobs: int,
    n_cores: int,
    free_memory: int,
    environment: Mapping[str, str],
) -> tuple[WorkerDevice, ...]:
    """Places for workers, never more than there are jobs.

    there : devices of this machine, best first. asked : of them, all GPUs (else the best device)
    when None. workers : how many processes, spread over the devices; one per GPU and as many as
    cores and memory (bytes free) allow on the CPU when None.

    A worker on the CPU computes in one thread: more workers use more cores, without the quarrel
    of several thread pools, and a slide's values do not depend on how many cores there were.

    Raises DkanError when a device is not there.
    """
    gpus = [name for name in available if name.startswith("cuda")]
    chosen = list(requested or gpus or available[:1])
    for i, name in enumerate(chosen):
        chosen[i] = "cuda:0" if name == "cuda" else name
        if chosen[i] not in available:
            raise DkanError(
                f"The device {name} is not on this machine; choose {' or '.join(available)}."
            )
    most = max(1, min(n_cores, free_memory // CPU_WORKER_BYTES))
    if n_workers is None:  # the CPU's come last, should there be fewer jobs
        chosen.sort(key="cpu".__eq__)
        names = [name for name in chosen for _ in range(most if name == "cpu" else 1)]
    else:
        names = [chosen[i % len(chosen)] for i in range(n_workers)]
    names = names[: max(1, n_jobs)]
    share = max(1, n_cores // len(names))
    return tuple(_create_worker_device(name, share, environment) for name in names)


def _create_worker_device(
    name: str, n_threads: int, environment: Mapping[str, str]
) -> WorkerDevice:
    if name == "cpu":
        return WorkerDevice(name, "cpu", 1, {"OMP_NUM_THREADS": "1"})
    if not name.startswith("cuda:"):
        return WorkerDevice(name, name, n_threads)
    number = int(name.removeprefix("cuda:"))
    visible = [
        v.strip() for v in environment.get(VISIBLE_DEVICES_VARIABLE, "").split(",") if v.strip()
    ]
    own = visible[number] if number < len(visible) else str(number)
    return WorkerDevice(name, "cuda:0", n_threads, {VISIBLE_DEVICES_VARIABLE: own})


class JobCancelled(Exception):
    """Nobody waits for the result any more."""


def run_job(
    job: SlideJob, on_progress: Callable[[PredictionUpdate], None], overwrite: bool = False
) -> JobOutcome:
    """Do a job, or find it done; again : do it even then.

    Raises Stopped, when ``watch`` does, and nothing else.
    """
    from .predict_slide import find_existing_result, predict_slide

    try:
        return (None if overwrite else find_existing_result(job)) or predict_slide(job, on_progress)
    except JobCancelled:
        raise
    except DkanError as error:
        said = str(error)
    except MemoryError:
        said = f"There is not enough memory for {job.name}; take fewer --workers."
    except Exception as error:  # a fault that one slide brings out must not cost the other 199
        at = traceback.extract_tb(error.__traceback__)[-1]
        said = (
            f"{type(error).__name__} at {at.filename.rpartition('/')[2]}:{at.lineno}, which is a "
            f"fault of this program; `napari-dkan predict` on {job.name} shows all of it."
        )
    return JobOutcome(job.slide, job.out, error=said)


WORKER_READY = "ready"


def serve_jobs(pipe: Connection, worker_device: WorkerDevice) -> None:
    """Live until the pipe closes; with it gone, as when the parent was killed, nothing goes on."""
    os.environ.update(worker_device.environment)  # before torch looks at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # tidies half-written files
    import torch

    torch.set_num_threads(worker_device.n_threads)
    try:
        pipe.send(WORKER_READY)
        while True:
            index, job, again = pipe.recv()
            outcome = run_job(
                replace(job, device=worker_device.device),
                create_progress_callback(index, pipe.send),
                again,
            )
            pipe.send(JobFinished(index, outcome))
    except (EOFError, OSError, JobCancelled):
        return


def create_progress_callback(
    index: int, send: Callable[[JobProgress], None], interval_s: float = PROGRESS_INTERVAL_S
) -> Callable:
    """A function for updates of a job that sends a Tick now and then.

    What ``send`` raises because nobody listens becomes Stopped.
    """

    last = 0.0

    def watch(update: PredictionUpdate) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < interval_s:
            return
        last = now
        try:
            send(JobProgress(index, update.done, update.total, update.stage == "context"))
        except OSError as error:
            raise JobCancelled from error

    return watch

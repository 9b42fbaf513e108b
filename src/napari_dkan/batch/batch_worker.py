"""Batch workers: assign devices, run a job, serve jobs from a pipe.

torch is imported only after the environment of the worker is set, never at module level.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ..errors import DkanError
from .slide_job import PROGRESS_INTERVAL_S, JobFinished, JobOutcome, JobProgress, SlideJob

if TYPE_CHECKING:
    from ..inference.prediction_progress import PredictionUpdate


VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
CPU_WORKER_BYTES = 2 * 2**30  # memory that a worker on the CPU may need
WORKER_READY = "ready"


@dataclass(frozen=True)
class WorkerDevice:
    """The device of one worker.

    Attributes
    ----------
    name
        Shown to the user.
    device
        As the worker sees it: with only its own GPU visible, that is the first. "auto" for a GPU
        that nobody asked for: where it does not work, the worker computes on the CPU.
    n_threads
        Threads of torch.
    environment
        Variables to set before torch is imported.
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
    """Assign devices to workers, never more than there are jobs.

    A worker on the CPU computes in one thread: more workers use more cores without competing
    thread pools, and the values of a slide do not depend on the number of cores.

    Parameters
    ----------
    available
        Devices of this machine, best first.
    requested
        Some of them; None for all GPUs, or else the best device.
    n_workers
        Number of processes, spread over the devices; None for one per GPU, and as many on the
        CPU as cores and memory allow.
    n_cores, free_memory
        Of this machine; memory in bytes.
    environment
        Of this process; its CUDA_VISIBLE_DEVICES is respected.

    Raises
    ------
    DkanError
        A requested device does not exist.
    """
    gpus = [name for name in available if name.startswith("cuda")]
    chosen = list(requested or gpus or available[:1])
    for i, name in enumerate(chosen):
        chosen[i] = "cuda:0" if name == "cuda" else name
        if chosen[i] not in available:
            raise DkanError(
                f"The device {name} is not on this machine; choose {' or '.join(available)}."
            )
    n_cpu_workers = max(1, min(n_cores, free_memory // CPU_WORKER_BYTES))
    if n_workers is None:
        chosen.sort(key="cpu".__eq__)  # the CPU last, as there may be fewer jobs than workers
        names = [name for name in chosen for _ in range(n_cpu_workers if name == "cpu" else 1)]
    else:
        names = [chosen[i % len(chosen)] for i in range(n_workers)]
    names = names[: max(1, n_jobs)]
    n_threads = max(1, n_cores // len(names))
    made = (_create_worker_device(name, n_threads, environment) for name in names)
    if requested:
        return tuple(made)
    return tuple(w if w.device == "cpu" else replace(w, device="auto") for w in made)


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
    gpu = visible[number] if number < len(visible) else str(number)
    return WorkerDevice(name, "cuda:0", n_threads, {VISIBLE_DEVICES_VARIABLE: gpu})


class JobCancelled(Exception):
    """The parent process or the client no longer waits for the result."""


def run_job(
    job: SlideJob, on_progress: Callable[[PredictionUpdate], None], overwrite: bool = False
) -> JobOutcome:
    """Run a job, or return the outcome of an earlier run, unless ``overwrite``.

    Errors are returned in the outcome, with what was logged until then. Only JobCancelled is
    raised, where ``on_progress`` does.
    """
    with _collect_log() as messages:
        outcome = _run_job(job, on_progress, overwrite)
    return replace(outcome, log=tuple(dict.fromkeys(messages)))


def _run_job(
    job: SlideJob, on_progress: Callable[[PredictionUpdate], None], overwrite: bool
) -> JobOutcome:
    from .existing_result import find_existing_result
    from .predict_slide import predict_slide

    try:
        return (None if overwrite else find_existing_result(job)) or predict_slide(job, on_progress)
    except JobCancelled:
        raise
    except DkanError as error:
        message = str(error)
    except MemoryError:
        message = f"There is not enough memory for {job.name}; take fewer --workers."
    except Exception as error:  # a bug that one slide triggers must not affect the others
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = (
            f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}, "
            f"which is a fault of this program; `napari-dkan predict` on {job.name} shows all of "
            "it."
        )
    return JobOutcome(job.slide, job.out, error=message)


class _ListHandler(logging.Handler):
    """Appends the messages of one thread: the workers of a cluster may have several."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def _collect_log() -> Iterator[list[str]]:
    """Collect what this package logs, to be printed by the process that the user looks at."""
    logger, handler = logging.getLogger("napari_dkan"), _ListHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def serve_jobs(pipe: Connection, worker_device: WorkerDevice) -> None:
    """Run jobs from a pipe until it closes, which also happens when the parent is killed."""
    os.environ.update(worker_device.environment)  # before torch reads it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # removes temporary files
    import torch

    from ..inference.device_errors import lost_devices

    torch.set_num_threads(worker_device.n_threads)
    try:
        pipe.send(WORKER_READY)
        while True:
            index, job, overwrite = pipe.recv()
            outcome = run_job(
                replace(job, device=worker_device.device),
                create_progress_callback(index, pipe.send),
                overwrite,
            )
            pipe.send(JobFinished(index, outcome))
            if lost_devices:  # until this process ends; another one takes the next job
                return
    except (EOFError, OSError, JobCancelled):
        return


def create_progress_callback(
    index: int, send: Callable[[JobProgress], None], interval_s: float = PROGRESS_INTERVAL_S
) -> Callable[[PredictionUpdate], None]:
    """Create a callback that sends the progress of a job at most every ``interval_s`` seconds.

    An OSError of ``send`` (nobody listens any more) becomes JobCancelled.
    """
    sent_at = 0.0

    def on_progress(update: PredictionUpdate) -> None:
        nonlocal sent_at
        now = time.monotonic()
        if now - sent_at < interval_s:
            return
        sent_at = now
        try:
            send(JobProgress(index, update.done, update.total, update.stage == "context"))
        except OSError as error:
            raise JobCancelled from error

    return on_progress

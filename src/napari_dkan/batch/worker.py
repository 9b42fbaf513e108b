"""A worker process: takes jobs from a pipe, one after the other, and tells what comes of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from .events import PROGRESS_INTERVAL_S, JobFinished, JobProgress
from .places import WorkerDevice

if TYPE_CHECKING:
    from ..inference.job import PredictionUpdate

WORKER_READY = "ready"


def serve_jobs(pipe: Connection, worker_device: WorkerDevice) -> None:
    """Live until the pipe closes; with it gone, as when the parent was killed, nothing goes on."""
    os.environ.update(worker_device.environment)  # before torch looks at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # tidies half-written files
    import torch

    from .task import JobCancelled, run_job

    torch.set_num_threads(worker_device.n_threads)
    try:
        pipe.send(WORKER_READY)
        while True:
            index, job, again = pipe.recv()
            outcome = run_job(replace(job, device=worker_device.device), create_progress_callback(index, pipe.send), again)
            pipe.send(JobFinished(index, outcome))
    except (EOFError, OSError, JobCancelled):
        return


def create_progress_callback(index: int, send: Callable[[JobProgress], None], interval_s: float = PROGRESS_INTERVAL_S) -> Callable:
    """A function for updates of a job that sends a Tick now and then.

    What ``send`` raises because nobody listens becomes Stopped.
    """
    from .task import JobCancelled

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

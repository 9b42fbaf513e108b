"""A worker of `batch.here` without torch, that does what the slide's name says."""

from __future__ import annotations

import os
import signal
import time

from napari_dkan.batch.slide_job import JobFinished, JobOutcome, JobProgress


def serve(pipe, place):
    if place.name == "broken":
        os._exit(3)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send("ready")
    try:
        while True:
            index, job, again = pipe.recv()
            pipe.send(JobProgress(index, 1, 2, False))
            if "killed" in job.slide:
                os.kill(os.getpid(), signal.SIGKILL)
            if "aborts" in job.slide:
                os.abort()
            if "once" in job.slide and not job.out.exists():
                job.out.write_text("was here")
                os._exit(7)
            while "endless" in job.slide:
                pipe.send(JobProgress(index, 1, 2, False))
                time.sleep(0.01)
            pipe.send(JobFinished(index, JobOutcome(job.slide, job.out, n_spots=int(again))))
    except (EOFError, OSError):
        return

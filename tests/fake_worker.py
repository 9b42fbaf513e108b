"""A batch worker without torch that does what the name of the slide says."""

from __future__ import annotations

import os
import signal
import time

from napari_dkan.batch.slide_job import JobFinished, JobOutcome, JobProgress


def serve_jobs(pipe, worker_device):
    if worker_device.name == "broken":
        os._exit(3)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send("ready")
    try:
        while True:
            index, job, overwrite = pipe.recv()
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
            outcome = JobOutcome(job.slide, job.out, n_spots=int(overwrite), log=("what was read",))
            pipe.send(JobFinished(index, outcome))
    except (EOFError, OSError):
        return

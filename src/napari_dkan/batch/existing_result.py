"""Find the results of identical earlier jobs, so that a batch continues after an interruption.

Neither torch nor a worker process is needed for it: a batch that is finished ends at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from ..errors import DkanError, ResultError
from ..file_hash import compute_sha256_cached
from .predict_slide import open_job_slide, resolve_checkpoint
from .slide_job import JobEvent, JobFinished, JobOutcome, SlideJob

log = logging.getLogger(__name__)

RunJobs = Callable[[Sequence[SlideJob]], Generator[JobEvent, None, None]]


def run_unfinished(
    jobs: Sequence[SlideJob], run: RunJobs, overwrite: bool = False
) -> Generator[JobEvent, None, None]:
    """Report the jobs that have a result, then run the others.

    Parameters
    ----------
    run
        Runs jobs; it is not called where every job has a result.
    overwrite
        Run all jobs.

    Yields
    ------
    JobEvent
        Progress, and JobFinished exactly once for each job.
    """
    pending: list[int] = []
    for index, job in enumerate(jobs):
        outcome = None if overwrite else _find_readable_result(job)
        if outcome is None:
            pending.append(index)
        else:
            yield JobFinished(index, outcome)
    if not pending:
        return
    with closing(run([jobs[index] for index in pending])) as events:
        for event in events:
            yield replace(event, index=pending[event.index])


def _find_readable_result(job: SlideJob) -> JobOutcome | None:
    """Find a result; what cannot be read is reported by the worker that runs the job."""
    try:
        return find_existing_result(job)
    except (DkanError, OSError):
        return None
    except Exception as error:  # must not end the other slides; the job is run as if new
        kind = type(error).__name__
        log.warning("%s is run anew; its earlier result raised %s %s", job.slide, kind, error)
        return None


def find_existing_result(job: SlideJob) -> JobOutcome | None:
    """Find the result of an identical earlier job.

    Its file must exist and be complete, and record the same slide and checkpoint (by their
    hashes) and the same parameters.

    Returns
    -------
    JobOutcome or None
        None if the job has to be run.

    Raises
    ------
    DkanError
        The slide or the checkpoint cannot be read.
    """
    from ..export.result_reader import read_result_summary

    if not job.out.is_file():
        return None
    try:
        saved = read_result_summary(job.out)
    except ResultError:  # cut short, or of another program
        return None
    provenance = saved.provenance
    if provenance.get("parameters") != job.parameters_json():
        return None
    if provenance.get("checkpoint_sha256") != compute_sha256_cached(resolve_checkpoint(job)):
        return None
    with open_job_slide(job) as slide:
        if provenance.get("slide_fingerprint") != slide.fingerprint():
            return None
    return JobOutcome(
        job.slide,
        job.out,
        n_spots=saved.n_spots,
        n_genes=saved.n_genes,
        n_unreliable=saved.n_unreliable,
        mean_reliability=saved.mean_reliability,
        is_reused=True,
    )

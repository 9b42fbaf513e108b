"""`napari-dkan batch`: predict on many slides."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..batch.slide_job import JobEvent, JobFinished, JobOutcome, SlideJob, split_names
from ..errors import DkanError
from .option_groups import JobOptions, with_option_groups

EXIT_INTERRUPTED = 130


@with_option_groups
def run_batch(
    slides: Annotated[
        list[str],
        typer.Argument(help="Slides, folders, globs, addresses, or a table that lists them."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for results.")],
    options: JobOptions,
    store: Annotated[
        bool, typer.Option(help="Keep tiles on disk for later visits (`cache show`).")
    ] = False,
    devices: Annotated[
        str | None, typer.Option(help="E.g. cuda:0,cuda:1; default every GPU, else the best.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; default one per GPU, on a CPU one per core."),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster that does the work.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Do again what is done already.")] = False,
    retry: Annotated[
        int, typer.Option(min=0, help="How often to try again where a process died.")
    ] = 1,
) -> None:
    """Predict on many slides. Give the same command again to go on after an interruption.

    Ends with 0 when all slides have a result, 1 when some have not, 2 when nothing could start,
    130 after Ctrl-C.
    """
    from ..batch.batch_output import (
        BatchProgressDisplay,
        format_counts,
        format_summary,
        write_summary,
    )
    from ..batch.existing_result import run_unfinished
    from ..batch.job_list import build_job_list

    if scheduler is not None and (devices is not None or workers is not None):
        raise DkanError("--devices and --workers are for this machine, not for --scheduler.")
    template = options.make_job("", out.absolute(), store=store)
    job_list = build_job_list(slides, template.out, template)
    jobs = job_list.jobs

    def run(unfinished: Sequence[SlideJob]) -> Generator[JobEvent, None, None]:
        from ..batch.predict_slide import validate_options

        validate_options(template)
        if scheduler is None:
            return _run_locally(unfinished, split_names(devices), workers, retry, overwrite)
        from ..batch.dask_runner import run_on_dask

        return run_on_dask(unfinished, scheduler, retry, overwrite)

    events = run_unfinished(jobs, run, overwrite)
    outcomes: dict[int, JobOutcome] = {}
    try:
        with closing(events), BatchProgressDisplay(jobs) as display:
            for note in job_list.notes:
                display.write_message(note)
            for event in events:
                if isinstance(event, JobFinished):
                    outcomes[event.index] = event.outcome
                    rows = [(jobs[i], outcomes[i]) for i in sorted(outcomes)]
                    if not event.outcome.is_reused or len(rows) == len(jobs):
                        write_summary(template.out, rows)
                display.update(event)
    except KeyboardInterrupt:
        finished = format_counts([*outcomes.values()]) if outcomes else "nothing is finished"
        n_left = len(jobs) - len(outcomes)
        typer.echo(
            f"Stopped: {finished}, {n_left} left. The same command goes on with them.", err=True
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(format_summary(rows))
    typer.echo(f"written to {out}")
    if any(outcome.error for outcome in outcomes.values()):
        raise typer.Exit(1)


def _run_locally(
    jobs: Sequence[SlideJob],
    devices: Sequence[str] | None,
    workers: int | None,
    max_retries: int,
    overwrite: bool,
) -> Generator[JobEvent, None, None]:
    import psutil

    from ..batch.batch_worker import assign_worker_devices
    from ..batch.local_runner import run_locally
    from ..inference.device import list_available_devices

    n_cores, memory = _count_available_cores(), psutil.virtual_memory().available
    available = list_available_devices()
    worker_devices = assign_worker_devices(
        available, devices, workers, len(jobs), n_cores, memory, os.environ
    )
    return run_locally(jobs, worker_devices, max_retries, overwrite)


def _count_available_cores() -> int:
    """Count the cores that this process may use, which a job scheduler may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

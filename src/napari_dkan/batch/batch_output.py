"""Output of the batch command: progress line, summary table and summary.csv."""

from __future__ import annotations

import csv
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..atomic_write import atomic_write
from .slide_job import JobEvent, JobFinished, JobOutcome, JobProgress, SlideJob

_log = logging.getLogger(__name__)

MAX_NAMED_SLIDES = 3  # slides in progress that the line names

SUMMARY_FILE = "summary.csv"
SUMMARY_HEADER = (
    *("slide", "out", "outcome", "spots", "seconds"),
    *("unreliable_share", "mean_reliability", "warning", "error"),
)

SummaryRow = tuple[SlideJob, JobOutcome]


class BatchProgressDisplay:
    """A progress line that follows events; without a terminal only the messages are printed."""

    def __init__(self, jobs: Sequence[SlideJob]) -> None:
        from tqdm import tqdm

        self._jobs = jobs
        self._running: dict[int, JobProgress] = {}
        self._n_done = 0
        self._start = time.monotonic()
        self._n_computed = 0.0  # slides that this run computed
        size = shutil.get_terminal_size()
        self._bar = tqdm(
            bar_format="{desc}",
            ncols=size.columns - 1,
            nrows=size.lines,
            leave=False,
            disable=None,
            file=sys.stderr,
        )

    def update(self, event: JobEvent) -> None:
        """Show an event."""
        if isinstance(event, JobProgress):
            self._running[event.index] = event
        else:
            self._finish_job(event)
        self._bar.set_description_str(self.format_line())

    def write_message(self, sentence: str) -> None:
        """Print a line above the progress line."""
        from tqdm import tqdm

        tqdm.write(sentence, file=sys.stderr)

    def format_line(self) -> str:
        """Return for example "12/200 slides | C3 410/1,243, D1 reading | 1 h 5 min left"."""
        parts = [f"{self._n_done}/{len(self._jobs)} slides"]
        running = [self._format_running_job(progress) for progress in self._running.values()]
        if running:
            n_unnamed = len(running) - MAX_NAMED_SLIDES
            more = f" and {n_unnamed} more" if n_unnamed > 0 else ""
            parts.append(", ".join(running[:MAX_NAMED_SLIDES]) + more)
        seconds = self.estimate_seconds_left()
        if seconds is not None:
            parts.append(f"{format_duration(seconds)} left")
        return " | ".join(parts)

    def estimate_seconds_left(self) -> float | None:
        """Estimate the remaining time from the rate of this run, None before there is a rate.

        Results of earlier runs do not count.
        """
        n_partial = sum(_progress_fraction(progress) for progress in self._running.values())
        n_computed = self._n_computed + n_partial
        if n_computed < 0.05:
            return None
        n_left = len(self._jobs) - self._n_done - n_partial
        return n_left * (time.monotonic() - self._start) / n_computed

    def _finish_job(self, event: JobFinished) -> None:
        self._running.pop(event.index, None)
        self._n_done += 1
        outcome = event.outcome
        if not outcome.is_reused and not outcome.error:
            self._n_computed += 1
        message = f"{outcome.n_spots:,} spots in {format_duration(outcome.seconds)}"
        if outcome.is_reused:
            message = f"{outcome.n_spots:,} spots, done before"
        name = self._jobs[event.index].out.stem
        for line in outcome.log:
            _log.info(f"{name}: {line}")
        self.write_message(f"{self._n_done}/{len(self._jobs)}  {name}: {outcome.error or message}")

    def _format_running_job(self, progress: JobProgress) -> str:
        stage = f"{progress.done:,}/{progress.total:,}"
        if progress.is_reading_context:
            stage = "reading"
        return f"{self._jobs[progress.index].out.stem} {stage}"

    def __enter__(self) -> BatchProgressDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


def format_duration(seconds: float) -> str:
    """Format seconds as for example "45 s", "30 min" or "3 h 1 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _progress_fraction(progress: JobProgress) -> float:
    if progress.is_reading_context or not progress.total:
        return 0.0
    return progress.done / progress.total


def write_summary(folder: Path, rows: Sequence[SummaryRow]) -> Path:
    """Write ``summary.csv`` with a line for every finished slide. Raises OutputError."""
    path = folder / SUMMARY_FILE
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(SUMMARY_HEADER)
        for job, outcome in rows:
            fraction, score = outcome.unreliable_fraction, outcome.mean_reliability
            table.writerow(
                [
                    job.location,
                    str(outcome.out),
                    outcome.status,
                    "" if outcome.error else outcome.n_spots,
                    f"{outcome.seconds:.1f}",
                    "" if fraction is None else f"{fraction:.4f}",
                    "" if score is None else f"{score:.4f}",
                    " ".join(outcome.notes),
                    outcome.error,
                ]
            )
    return path


def format_summary(rows: Sequence[SummaryRow]) -> str:
    """Format a line for each slide, then notes and errors, then the counts."""
    table = [("slide", "outcome", "spots", "seconds", "unreliable", "reliability")]
    for job, outcome in rows:
        numbers = ("", "", "", "") if outcome.error else _format_numbers(outcome)
        table.append((job.out.stem, outcome.status, *numbers))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, status, *cells in table:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[2:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), status.ljust(widths[1]), *right]).rstrip())
    for job, outcome in rows:
        messages = (*outcome.notes, outcome.error)
        lines += [f"{job.out.stem}: {message}" for message in messages if message]
    return "\n".join([*lines, format_counts([outcome for _, outcome in rows])])


def format_counts(outcomes: Sequence[JobOutcome]) -> str:
    """Return for example "199 of 200 slides have a result (12 from before), 1 failed"."""
    n, n_failed = len(outcomes), sum(1 for outcome in outcomes if outcome.error)
    n_reused = sum(1 for outcome in outcomes if outcome.is_reused)
    before = f" ({n_reused} from before)" if n_reused else ""
    slides = "slide has" if n == 1 else "slides have"
    return f"{n - n_failed} of {n} {slides} a result{before}, {n_failed} failed"


def _format_numbers(outcome: JobOutcome) -> tuple[str, str, str, str]:
    fraction, score = outcome.unreliable_fraction, outcome.mean_reliability
    return (
        f"{outcome.n_spots:,}",
        "-" if outcome.is_reused else f"{outcome.seconds:.0f}",
        "-" if fraction is None else f"{fraction:.1%}",
        "-" if score is None else f"{score:.2f}",
    )

"""Output of the batch command: progress line, summary table and summary.csv."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..atomic_write import atomic_write
from .slide_job import JobEvent, JobFinished, JobOutcome, JobProgress, SlideJob

MAX_NAMED_SLIDES = 3  # slides under way that are named


class BatchProgressDisplay:
    """Follows events. Where no terminal is, as in a job's log, only the lines that stay appear."""

    def __init__(self, jobs: Sequence[SlideJob]) -> None:
        from tqdm import tqdm

        self._jobs = jobs
        self._running: dict[int, JobProgress] = {}
        self._n_done = 0
        self._start = time.monotonic()
        self._n_computed = 0.0  # slides' worth of work that this run did
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
        if isinstance(event, JobProgress):
            self._running[event.index] = event
        else:
            self._finish_job(event)
        self._bar.set_description_str(self.format_line())

    def write_message(self, sentence: str) -> None:
        """A line that stays."""
        from tqdm import tqdm

        tqdm.write(sentence, file=sys.stderr)

    def format_line(self) -> str:
        """E.g. "12/200 slides | C3 410/1,243, D1 reading | 1 h 5 min left"."""
        parts = [f"{self._n_done}/{len(self._jobs)} slides"]
        under = [self._format_running_job(tick) for tick in self._running.values()]
        if under:
            more = (
                f" and {len(under) - MAX_NAMED_SLIDES} more"
                if len(under) > MAX_NAMED_SLIDES
                else ""
            )
            parts.append(", ".join(under[:MAX_NAMED_SLIDES]) + more)
        left = self.estimate_seconds_left()
        if left is not None:
            parts.append(f"{format_duration(left)} left")
        return " | ".join(parts)

    def estimate_seconds_left(self) -> float | None:
        """By the rate of this run so far; None before there is one. What stood already is no
        measure of the rest."""
        part = sum(_progress_fraction(tick) for tick in self._running.values())
        worked = self._n_computed + part
        if worked < 0.05:
            return None
        rest = len(self._jobs) - self._n_done - part
        return rest * (time.monotonic() - self._start) / worked

    def _finish_job(self, event: JobFinished) -> None:
        self._running.pop(event.index, None)
        self._n_done += 1
        outcome = event.outcome
        if not outcome.is_reused and not outcome.error:
            self._n_computed += 1
        said = f"{outcome.n_spots:,} spots in {format_duration(outcome.seconds)}"
        if outcome.is_reused:
            said = f"{outcome.n_spots:,} spots, done before"
        name = self._jobs[event.index].out.stem
        self.write_message(f"{self._n_done}/{len(self._jobs)}  {name}: {outcome.error or said}")

    def _format_running_job(self, tick: JobProgress) -> str:
        stage = "reading" if tick.is_reading_context else f"{tick.done:,}/{tick.total:,}"
        return f"{self._jobs[tick.index].out.stem} {stage}"

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
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _progress_fraction(tick: JobProgress) -> float:
    return 0.0 if tick.is_reading_context or not tick.total else tick.done / tick.total


SUMMARY_FILE = "summary.csv"
SUMMARY_HEADER = (
    *("slide", "out", "outcome", "spots", "seconds"),
    *("unreliable_share", "mean_reliability", "warning", "error"),
)

SummaryRow = tuple[SlideJob, JobOutcome]


def write_summary(folder: Path, rows: Sequence[SummaryRow]) -> Path:
    """``summary.csv`` with a line for every slide that came to an end. Raises OutputError."""
    path = folder / SUMMARY_FILE
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(SUMMARY_HEADER)
        for job, outcome in rows:
            share = (
                "" if outcome.unreliable_fraction is None else f"{outcome.unreliable_fraction:.4f}"
            )
            score = "" if outcome.mean_reliability is None else f"{outcome.mean_reliability:.4f}"
            spots = "" if outcome.error else outcome.n_spots
            seconds = f"{outcome.seconds:.1f}"
            warning = " ".join(outcome.notes)
            place = (job.location, str(outcome.out), outcome.status)
            table.writerow([*place, spots, seconds, share, score, warning, outcome.error])
    return path


def format_summary(rows: Sequence[SummaryRow]) -> str:
    """A line for each slide, then what is to be known of some, then the counts."""
    lines = [("slide", "outcome", "spots", "seconds", "unreliable", "reliability")]
    for job, o in rows:
        numbers = ("", "", "", "") if o.error else _format_numbers(o)
        lines.append((job.out.stem, o.status, *numbers))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for name, word, *cells in lines:
        right = [c.rjust(w) for c, w in zip(cells, widths[2:], strict=True)]
        text.append("  ".join([name.ljust(widths[0]), word.ljust(widths[1]), *right]).rstrip())
    for job, o in rows:
        text += [f"{job.out.stem}: {said}" for said in (*o.notes, o.error) if said]
    return "\n".join([*text, format_counts([o for _, o in rows])])


def format_counts(outcomes: Sequence[JobOutcome]) -> str:
    """E.g. "199 of 200 slides have a result (12 from before), 1 failed"."""
    failed = sum(1 for o in outcomes if o.error)
    kept = sum(1 for o in outcomes if o.is_reused)
    before = f" ({kept} from before)" if kept else ""
    slides = "slide has" if len(outcomes) == 1 else "slides have"
    return f"{len(outcomes) - failed} of {len(outcomes)} {slides} a result{before}, {failed} failed"


def _format_numbers(o: JobOutcome) -> tuple[str, str, str, str]:
    share = "-" if o.unreliable_fraction is None else f"{o.unreliable_fraction:.1%}"
    score = "-" if o.mean_reliability is None else f"{o.mean_reliability:.2f}"
    return f"{o.n_spots:,}", "-" if o.is_reused else f"{o.seconds:.0f}", share, score

"""What came of many slides: a table to read, and the same as a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..files import atomic_write
from .job import JobOutcome, SlideJob

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
            share = "" if outcome.unreliable_fraction is None else f"{outcome.unreliable_fraction:.4f}"
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

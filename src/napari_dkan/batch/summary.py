"""What came of many slides: a table to read, and the same as a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..files import written_whole
from .job import Outcome, SlideJob

FILE = "summary.csv"
HEADER = (
    *("slide", "out", "outcome", "spots", "seconds"),
    *("unreliable_share", "mean_reliability", "warning", "error"),
)

Row = tuple[SlideJob, Outcome]


def write_summary(folder: Path, rows: Sequence[Row]) -> Path:
    """``summary.csv`` with a line for every slide that came to an end. Raises OutputError."""
    path = folder / FILE
    with written_whole(path) as file, file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(HEADER)
        for job, outcome in rows:
            share = "" if outcome.share is None else f"{outcome.share:.4f}"
            score = "" if outcome.reliability is None else f"{outcome.reliability:.4f}"
            spots = "" if outcome.error else outcome.spots
            seconds = f"{outcome.seconds:.1f}"
            warning = " ".join(outcome.notes)
            place = (job.location, str(outcome.out), outcome.word)
            table.writerow([*place, spots, seconds, share, score, warning, outcome.error])
    return path


def summary_table(rows: Sequence[Row]) -> str:
    """A line for each slide, then what is to be known of some, then the counts."""
    lines = [("slide", "outcome", "spots", "seconds", "unreliable", "reliability")]
    for job, o in rows:
        numbers = ("", "", "", "") if o.error else _numbers(o)
        lines.append((job.out.stem, o.word, *numbers))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for name, word, *cells in lines:
        right = [c.rjust(w) for c, w in zip(cells, widths[2:], strict=True)]
        text.append("  ".join([name.ljust(widths[0]), word.ljust(widths[1]), *right]).rstrip())
    for job, o in rows:
        text += [f"{job.out.stem}: {said}" for said in (*o.notes, o.error) if said]
    return "\n".join([*text, counts([o for _, o in rows])])


def counts(outcomes: Sequence[Outcome]) -> str:
    """E.g. "199 of 200 slides have a result (12 from before), 1 failed"."""
    failed = sum(1 for o in outcomes if o.error)
    kept = sum(1 for o in outcomes if o.kept)
    before = f" ({kept} from before)" if kept else ""
    slides = "slide has" if len(outcomes) == 1 else "slides have"
    return f"{len(outcomes) - failed} of {len(outcomes)} {slides} a result{before}, {failed} failed"


def _numbers(o: Outcome) -> tuple[str, str, str, str]:
    share = "-" if o.share is None else f"{o.share:.1%}"
    score = "-" if o.reliability is None else f"{o.reliability:.2f}"
    return f"{o.spots:,}", "-" if o.kept else f"{o.seconds:.0f}", share, score

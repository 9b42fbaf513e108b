"""How far a batch is: a line on the terminal that changes, and one that stays for each slide."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from .events import JobFinished, JobEvent, JobProgress
from .job import SlideJob

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
            more = f" and {len(under) - MAX_NAMED_SLIDES} more" if len(under) > MAX_NAMED_SLIDES else ""
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

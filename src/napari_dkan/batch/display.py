"""How far a batch is: a line on the terminal that changes, and one that stays for each slide."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from .events import Ended, Event, Tick
from .job import SlideJob

SHOWN = 3  # slides under way that are named


class Display:
    """Follows events. Where no terminal is, as in a job's log, only the lines that stay appear."""

    def __init__(self, jobs: Sequence[SlideJob]) -> None:
        from tqdm import tqdm

        self._jobs = jobs
        self._running: dict[int, Tick] = {}
        self._done = 0
        self._start = time.monotonic()
        self._computed = 0.0  # slides' worth of work that this run did
        size = shutil.get_terminal_size()
        self._bar = tqdm(
            bar_format="{desc}",
            ncols=size.columns - 1,
            nrows=size.lines,
            leave=False,
            disable=None,
            file=sys.stderr,
        )

    def show(self, event: Event) -> None:
        if isinstance(event, Tick):
            self._running[event.index] = event
        else:
            self._end(event)
        self._bar.set_description_str(self.line())

    def say(self, sentence: str) -> None:
        """A line that stays."""
        from tqdm import tqdm

        tqdm.write(sentence, file=sys.stderr)

    def line(self) -> str:
        """E.g. "12/200 slides | C3 410/1,243, D1 reading | 1 h 5 min left"."""
        parts = [f"{self._done}/{len(self._jobs)} slides"]
        under = [self._under_way(tick) for tick in self._running.values()]
        if under:
            more = f" and {len(under) - SHOWN} more" if len(under) > SHOWN else ""
            parts.append(", ".join(under[:SHOWN]) + more)
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return " | ".join(parts)

    def seconds_left(self) -> float | None:
        """By the rate of this run so far; None before there is one. What stood already is no
        measure of the rest."""
        part = sum(_share(tick) for tick in self._running.values())
        worked = self._computed + part
        if worked < 0.05:
            return None
        rest = len(self._jobs) - self._done - part
        return rest * (time.monotonic() - self._start) / worked

    def _end(self, event: Ended) -> None:
        self._running.pop(event.index, None)
        self._done += 1
        outcome = event.outcome
        if not outcome.kept and not outcome.error:
            self._computed += 1
        said = f"{outcome.spots:,} spots in {duration(outcome.seconds)}"
        if outcome.kept:
            said = f"{outcome.spots:,} spots, done before"
        name = self._jobs[event.index].out.stem
        self.say(f"{self._done}/{len(self._jobs)}  {name}: {outcome.error or said}")

    def _under_way(self, tick: Tick) -> str:
        stage = "reading" if tick.reading else f"{tick.done:,}/{tick.total:,}"
        return f"{self._jobs[tick.index].out.stem} {stage}"

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _share(tick: Tick) -> float:
    return 0.0 if tick.reading or not tick.total else tick.done / tick.total

"""Progress of a map job: its rate, the remaining time, and when to draw what it has done."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ...inference.prediction_progress import PredictionUpdate

REDRAW_SECONDS = 0.6  # between two drawings of a growing map, at least
REDRAW_SHARE = 0.1  # of the time of a job, at most; drawing delays prediction


@dataclass(frozen=True)
class PredictionProgress:
    """Progress of a job.

    Attributes
    ----------
    stage : str
    done, total : int
        Tiles of the stage.
    tiles_per_s, remaining_s : float or None
        None until they are known.
    """

    stage: str
    done: int
    total: int
    tiles_per_s: float | None = None
    remaining_s: float | None = None


class JobTimer:
    """Times a job: when to redraw, its rate and the remaining time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._next_redraw = 0.0  # the first tiles are drawn at once
        self._stage, self._stage_start, self._stage_done = "", self._start, 0
        self._last_progress: PredictionProgress | None = None  # of the tiles themselves
        self.predicted_count = 0  # tiles that were not cached

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def is_redraw_due(self) -> bool:
        """Return whether to redraw now; True starts the next interval."""
        now = time.perf_counter()
        if now < self._next_redraw:
            return False
        self._next_redraw = now + REDRAW_SECONDS
        return True

    def end_redraw(self, start: float) -> None:
        """Put off the next redraw after one that began at ``start`` (of `time.perf_counter`)."""
        spent = time.perf_counter() - start
        self._next_redraw = max(self._next_redraw, start + spent / REDRAW_SHARE)

    def progress(self, update: PredictionUpdate) -> PredictionProgress:
        """Return the progress after an update.

        The rate is counted from the first update of a stage, which includes the start-up time.
        Context that is read between tiles counts as time of the tiles.
        """
        now = time.perf_counter()
        if update.stage == "context" and self._last_progress is not None:
            return replace(self._last_progress, stage="context")
        if update.stage == "spots":
            self.predicted_count += len(update.rows)
        if update.stage != self._stage:
            self._stage, self._stage_start, self._stage_done = update.stage, now, update.done
        done, seconds = update.done - self._stage_done, now - self._stage_start
        known = update.stage == "spots" and done and seconds > 0.05  # not of what comes before
        rate = done / seconds if known else None
        remaining = None if rate is None else (update.total - update.done) / rate
        progress = PredictionProgress(update.stage, update.done, update.total, rate, remaining)
        self._last_progress = progress if update.stage == "spots" else None
        return progress

"""What whoever does the jobs tells while they run."""

from __future__ import annotations

from dataclasses import dataclass

from .job import JobOutcome

PROGRESS_INTERVAL_S = 0.25  # seconds between two ticks of one slide


@dataclass(frozen=True)
class JobProgress:
    """Job number ``index`` has done so many of its tiles; reading : of their surroundings."""

    index: int
    done: int
    total: int
    is_reading_context: bool


@dataclass(frozen=True)
class JobFinished:
    """Job number ``index`` has come to its end, one way or the other."""

    index: int
    outcome: JobOutcome


JobEvent = JobProgress | JobFinished

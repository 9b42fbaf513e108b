"""What whoever does the jobs tells while they run."""

from __future__ import annotations

from dataclasses import dataclass

from .job import Outcome

EVERY = 0.25  # seconds between two ticks of one slide


@dataclass(frozen=True)
class Tick:
    """Job number ``index`` has done so many of its tiles; reading : of their surroundings."""

    index: int
    done: int
    total: int
    reading: bool


@dataclass(frozen=True)
class Ended:
    """Job number ``index`` has come to its end, one way or the other."""

    index: int
    outcome: Outcome


Event = Tick | Ended

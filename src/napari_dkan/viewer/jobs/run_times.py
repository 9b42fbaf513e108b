"""How long a prediction takes: from earlier runs on this machine, or from a few tiles."""

from __future__ import annotations

from collections.abc import Sequence

RunTime = tuple[int, float]  # computed tiles and seconds of a run
MIN_RUN_TILES = 16  # fewer are mostly start-up time
RUN_MARGIN = 1.25  # on both sides of the rates of earlier runs
# A few tiles in the centre share what is read around them, and are a small batch.
PROBE_SLOWER, PROBE_FASTER = 4.0, 2.0


def estimate_run_seconds(
    tiles: int, runs: Sequence[RunTime], probe_rate: float | None
) -> tuple[float, float] | None:
    """Estimate the shortest and the longest duration of a run.

    Parameters
    ----------
    tiles : int
    runs : sequence of RunTime
        Earlier runs of the same checkpoint on this machine, of any slide.
    probe_rate : float or None
        Tiles per second that were measured on this slide: of its last run, else of a few tiles.

    Returns
    -------
    tuple of float or None
        None before anything was measured.
    """
    rates = [count / max(seconds, 1e-3) for count, seconds in runs]
    if rates:
        rates += [] if probe_rate is None else [probe_rate]
        return tiles / (RUN_MARGIN * max(rates)), RUN_MARGIN * tiles / min(rates)
    if probe_rate is None:
        return None
    return tiles / (PROBE_FASTER * probe_rate), PROBE_SLOWER * tiles / probe_rate


def format_duration(seconds: float) -> str:
    """Format a time as ``8 s``, ``3 min`` or ``1.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))}\u00a0s"  # no line break before the unit
    if seconds < 5400:
        return f"{seconds / 60:.0f}\u00a0min"
    return f"{seconds / 3600:.1f}\u00a0h"


def format_range(low: float, high: float) -> str:
    """Format a range of times as ``2 to 9 s``, ``50 s to 3 min`` or ``about 1 s``."""
    short, long = format_duration(low), format_duration(high)
    if short == long:
        return f"about {short}"
    if short.split("\u00a0")[1] == long.split("\u00a0")[1]:
        short = short.split("\u00a0")[0]
    return f"{short} to {long}"

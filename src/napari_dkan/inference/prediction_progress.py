"""Progress updates of a prediction job, and the time of each of its stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

STAGE_ORDER = (
    "read",
    "resize",
    "wait",
    "copy",
    "encode",
    "context",
    "trunk",
    "evidence",
    "fuse",
    "decode",
    "store",
    "draw",
)


@dataclass
class _StageTotals:
    seconds: float = 0.0
    tiles: int = 0


class StageTimer:
    """Sum the time of named stages. Thread-safe; a measurement costs about two microseconds."""

    def __init__(self) -> None:
        self._totals: dict[str, _StageTotals] = {}
        self._lock = Lock()

    @contextmanager
    def __call__(self, stage: str, tiles: int = 1) -> Iterator[None]:
        """Time a ``with`` block that processes a number of tiles."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start, tiles)

    def add(self, stage: str, seconds: float, tiles: int = 1) -> None:
        """Add a measured time to a stage."""
        with self._lock:
            totals = self._totals.setdefault(stage, _StageTotals())
            totals.seconds += seconds
            totals.tiles += tiles

    def reset(self) -> None:
        """Set all stages to zero."""
        with self._lock:
            self._totals = {}

    def get_seconds(self) -> dict[str, float]:
        """Seconds of each stage, in the order in which a tile passes them."""
        with self._lock:
            names = [s for s in STAGE_ORDER if s in self._totals]
            names += [s for s in self._totals if s not in STAGE_ORDER]
            return {name: self._totals[name].seconds for name in names}

    def format_report(self) -> str:
        """Format a plain-text table for a bug report."""
        lines = [f"{'stage':<8}{'seconds':>8}{'tiles':>8}{'ms/tile':>9}"]
        for name in self.get_seconds():
            with self._lock:
                totals = self._totals[name]
            ms_per_tile = 1000 * totals.seconds / max(totals.tiles, 1)
            lines.append(f"{name:<8}{totals.seconds:8.2f}{totals.tiles:8d}{ms_per_tile:9.3f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class PredictionUpdate:
    """The progress of a job since its last update.

    Attributes
    ----------
    stage : str
        "known" for tiles with cached tokens, "context" during the encoding of a context window,
        else "spots".
    done, total : int
        Tiles of this stage.
    rows : ndarray
        (B,) rows of the target; empty in "context".
    values : ndarray
        (B, K) float32 values of the rows.
    gene_columns : tuple of int or None
        (K,) columns of the values in the prediction; None for all.
    tokens : ndarray or None
        (B, D) float32 fused tokens of the rows, from which any gene can be decoded.
    qc_features : ndarray or None
        (B, E) float32 quality-control features of the rows; columns `QC_FEATURE_NAMES`.
    spread : ndarray or None
        (B, K) float32 standard deviations of the values, where they were asked for and known.
    failed_rows : ndarray
        (F,) rows that cannot be predicted because the slide is damaged there.
    """

    stage: str
    done: int
    total: int
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    gene_columns: tuple[int, ...] | None = None
    tokens: NDArray[np.float32] | None = None
    qc_features: NDArray[np.float32] | None = None
    failed_rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    spread: NDArray[np.float32] | None = None

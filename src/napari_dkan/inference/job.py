"""What a running job tells: its updates, and the one error that has a remedy of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError


class DeviceOutOfMemoryError(DkanError):
    """The device's memory does not even hold one spot."""

    def __init__(self, device: object) -> None:
        super().__init__(
            f"The memory of {device} does not hold one spot of this checkpoint; "
            "close other programs that use it, or predict on the CPU."
        )


@dataclass(frozen=True)
class PredictionUpdate:
    """What happened since the last one.

    stage : "known" for tiles predicted before, "context" while surroundings are encoded, else
        "spots".
    done, total : tiles of this stage.
    rows, values : (B,) rows of the target and their (B, K) float32; empty in "context".
    genes : (K,) columns of the values in the prediction, None for all.
    tokens : (B, D) float32 fused tokens of the rows, from which any gene can be decoded.
    evidence : (B, E) float32, what speaks for and against each row; columns `evidence.NAMES`.
    failed : (F,) rows that cannot be predicted because the slide is damaged there.
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


def make_context_update(done: int, total: int) -> PredictionUpdate:
    """An update without values."""
    return PredictionUpdate("context", done, total)

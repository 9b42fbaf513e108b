"""What a running job tells: its updates, and the one error that has a remedy of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError


class OutOfMemory(DkanError):
    """The device's memory does not even hold one spot."""

    def __init__(self, device: object) -> None:
        super().__init__(
            f"The memory of {device} does not hold one spot of this checkpoint; "
            "close other programs that use it, or predict on the CPU."
        )


@dataclass(frozen=True)
class Update:
    """What happened since the last one.

    stage : "context" while the slide's own tiles are encoded, then "spots".
    done, total : tiles of this stage.
    rows, values : (B,) rows of the target and their (B, G) float32; empty in "context".
    """

    stage: str
    done: int
    total: int
    rows: NDArray[np.int64]
    values: NDArray[np.float32]


def context_update(done: int, total: int) -> Update:
    """An update without values."""
    return Update("context", done, total, np.empty(0, np.int64), np.empty((0, 0), np.float32))

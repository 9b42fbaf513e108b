"""LabelScale: how counts became the numbers a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelScale:
    """Counts over the panel -> library size -> log -> smoothing (dkan-method.md, section 2).

    target_sum : per-spot library size over the panel only.
    base : base of the logarithm of (1 + x).
    smoothing : side of the square array neighbourhood averaged over, 1 for none.
    """

    target_sum: float = 10_000.0
    base: float = 10.0
    smoothing: int = 3

    @property
    def name(self) -> str:
        """Short text for colour bars: ``log10(1 + counts per 10k of panel)``."""
        per = f"{self.target_sum / 1000:g}k" if self.target_sum >= 1000 else f"{self.target_sum:g}"
        smooth = f", {self.smoothing}x{self.smoothing} mean" if self.smoothing > 1 else ""
        base = "ln" if abs(self.base - np.e) < 1e-6 else f"log{self.base:g}"
        return f"{base}(1 + counts per {per} of panel){smooth}"

    def normalize_and_log(self, counts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalise and log raw panel counts (N, G); every row total must be positive."""
        total = counts.sum(axis=1, keepdims=True)
        if (total <= 0).any():
            raise ValueError("spots with a zero panel total must be dropped before")
        scaled = counts / total * self.target_sum
        return (np.log1p(scaled) / np.log(self.base)).astype(np.float32)

    def smooth(self, values: NDArray[np.float32], array: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean over the array neighbourhood, present spots only, the spot included."""
        if self.smoothing <= 1:
            return values
        reach = self.smoothing // 2
        row_of = {(int(x), int(y)): i for i, (x, y) in enumerate(array)}
        out = np.empty_like(values)
        for i, (x, y) in enumerate(array):
            near = [
                row
                for dx in range(-reach, reach + 1)
                for dy in range(-reach, reach + 1)
                if (row := row_of.get((int(x) + dx, int(y) + dy))) is not None
            ]
            out[i] = values[near].mean(axis=0)
        return out

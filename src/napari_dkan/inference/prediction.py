"""Prediction: expression predicted at spots, with what it was made by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..expression.label_scale import LabelScale
from ..expression.panel import Panel
from .target import Target


@dataclass(frozen=True)
class Prediction:
    """Predicted expression of a panel at the spots of a target.

    values : (N, G) float32 on the label scale; a row is NaN until it is predicted.
    provenance : JSON-able record of version, checkpoint hash, slide and parameters.
    """

    target: Target
    panel: Panel
    label_scale: LabelScale
    values: NDArray[np.float32]
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(
        cls, target: Target, panel: Panel, label_scale: LabelScale, provenance: dict[str, Any]
    ) -> Prediction:
        values = np.full((len(target.spots), len(panel)), np.nan, dtype=np.float32)
        return cls(target, panel, label_scale, values, provenance)

    def fill(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Take what a batch predicted; batches without spots change nothing."""
        if len(rows):
            self.values[rows] = values

    @property
    def done(self) -> NDArray[np.bool_]:
        """(N,) which spots are predicted."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def gene(self, symbol: str) -> NDArray[np.float32]:
        """(N,) predicted values of one gene, NaN where not predicted."""
        return self.values[:, self.panel.row(symbol)]

    def finished(self) -> Prediction:
        """Only the predicted spots: what a cancelled job leaves."""
        done = self.done
        return Prediction(
            self.target.take(done),
            self.panel,
            self.label_scale,
            self.values[done],
            self.provenance,
        )

"""Prediction: expression predicted at spots, with what it was made by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    zero_shot : symbols of the panel's last genes, which are predicted from their text alone and
        in standard deviations from their own mean; provenance["zero_shot"] says how well.
    """

    target: Target
    panel: Panel
    label_scale: LabelScale
    values: NDArray[np.float32]
    provenance: dict[str, Any] = field(default_factory=dict)
    zero_shot: tuple[str, ...] = ()

    @classmethod
    def empty(
        cls,
        target: Target,
        panel: Panel,
        label_scale: LabelScale,
        provenance: dict[str, Any],
        zero_shot: tuple[str, ...] = (),
    ) -> Prediction:
        values = np.full((len(target.spots), len(panel)), np.nan, dtype=np.float32)
        return cls(target, panel, label_scale, values, provenance, zero_shot)

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
        return replace(self, target=self.target.take(done), values=self.values[done])

    def kind(self, symbol: str) -> str:
        """How a gene's values came about, for names and legends."""
        return "predicted zero-shot" if symbol in self.zero_shot else "predicted"

    def units(self, symbol: str) -> str:
        """What a gene's values are measured in, and for a zero-shot gene what to expect of it."""
        if symbol not in self.zero_shot:
            return self.label_scale.name
        record = self.provenance["zero_shot"]
        return f"{record['units']}\n{record['expectation']}"

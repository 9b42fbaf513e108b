"""Prediction: expression predicted at spots, with what it was made by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..expression.label_scale import LabelScale
from ..expression.panel import Panel
from .prediction_progress import PredictionUpdate
from .target import Target
from .tile_qc_features import QC_FEATURE_NAMES


@dataclass(frozen=True)
class Prediction:
    """Predicted expression of a panel at the spots of a target.

    values : (N, G) float32 on the label scale; NaN until spot and gene are decoded.
    tokens : (N, D) float32 fused tokens, from which any gene can be decoded; NaN until fused.
    provenance : JSON-able record of version, checkpoint hash, slide and parameters.
    zero_shot : symbols of the panel's last genes, which are predicted from their text alone and
        in standard deviations from their own mean; provenance["zero_shot"] says how well.
    failed : (N,) bool, spots that cannot be predicted because the slide is damaged there.
    evidence : (N, E) float32, what speaks for and against each spot's prediction, columns
        `evidence.NAMES`; NaN until predicted.
    """

    target: Target
    panel: Panel
    label_scale: LabelScale
    values: NDArray[np.float32]
    tokens: NDArray[np.float32]
    provenance: dict[str, Any] = field(default_factory=dict)
    zero_shot_symbols: tuple[str, ...] = ()
    failed_mask: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    qc_features: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, len(QC_FEATURE_NAMES)), np.float32)
    )

    @classmethod
    def create_empty(
        cls,
        target: Target,
        panel: Panel,
        label_scale: LabelScale,
        provenance: dict[str, Any],
        zero_shot_symbols: tuple[str, ...] = (),
        token_dim: int = 1,
    ) -> Prediction:
        """width : D, the length of a fused token."""
        count = len(target.spots)
        values = np.full((count, len(panel)), np.nan, dtype=np.float32)
        tokens = np.full((count, token_dim), np.nan, dtype=np.float32)
        failed = np.zeros(count, bool)
        evidence = np.full((count, len(QC_FEATURE_NAMES)), np.nan, dtype=np.float32)
        return cls(
            target,
            panel,
            label_scale,
            values,
            tokens,
            provenance,
            zero_shot_symbols,
            failed,
            evidence,
        )

    def apply_update(self, update: PredictionUpdate) -> None:
        """Take what a batch predicted; batches without spots change nothing."""
        self.failed_mask[update.failed_rows] = True
        if not len(update.rows):
            return
        if update.tokens is not None:
            self.tokens[update.rows] = update.tokens
            self.failed_mask[update.rows] = False
        if update.qc_features is not None:
            self.qc_features[update.rows] = update.qc_features
        self.set_gene_values(update.rows, update.values, update.gene_columns)

    def set_gene_values(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float32],
        gene_columns: Sequence[int] | None = None,
    ) -> None:
        """Take values (B, K) of rows (B,) and columns (K,), all of them when None."""
        if gene_columns is None:
            self.values[rows] = values
        else:
            self.values[np.ix_(rows, np.asarray(gene_columns, np.int64))] = values

    @property
    def predicted_mask(self) -> NDArray[np.bool_]:
        """(N,) which spots are predicted, whatever genes of them are decoded."""
        return np.asarray(np.isfinite(self.tokens[:, 0]))

    def find_undecoded_rows(self, column: int) -> NDArray[np.int64]:
        """Rows that are predicted but lack this gene's value."""
        return np.flatnonzero(self.predicted_mask & ~np.isfinite(self.values[:, column]))

    def find_incomplete_columns(self) -> NDArray[np.int64]:
        """Columns that some predicted row lacks."""
        done = self.predicted_mask
        return np.flatnonzero(~np.isfinite(self.values[done]).all(axis=0))

    def get_gene_values(self, symbol: str) -> NDArray[np.float32]:
        """(N,) predicted values of one gene, NaN where there is none."""
        return self.values[:, self.panel.row(symbol)]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Prediction:
        """The spots of these rows (indices or a mask)."""
        return replace(
            self,
            target=self.target.take(rows),
            values=self.values[rows],
            tokens=self.tokens[rows],
            failed_mask=self.failed_mask[rows],
            qc_features=self.qc_features[rows],
        )

    def select_predicted(self) -> Prediction:
        """Only the predicted spots: what a cancelled job leaves."""
        return self.take(self.predicted_mask)

    def get_value_kind(self, symbol: str) -> str:
        """How a gene's values came about, for names and legends."""
        return "predicted zero-shot" if symbol in self.zero_shot_symbols else "predicted"

    def get_value_units(self, symbol: str) -> str:
        """What a gene's values are measured in, and for a zero-shot gene what to expect of it."""
        if symbol not in self.zero_shot_symbols:
            return self.label_scale.name
        record = self.provenance["zero_shot"]
        return f"{record['units']}\n{record['expectation']}"

"""A prediction: expression values at spots and their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..expression.label_scale import LabelScale
from ..expression.panel import Panel
from .gene_set_score import GeneSetScore
from .prediction_progress import PredictionUpdate
from .target import Target
from .tile_qc_features import QC_FEATURE_NAMES

DISPLAY_PERCENTILES = 2.0, 98.0  # values of a gene at the ends of its color scale


class SpotReliability(Protocol):
    """The reliability of N predicted spots.

    Attributes
    ----------
    score : ndarray
        (N,) from 0 to 1, higher is more reliable; NaN where unknown.
    unreliable : ndarray
        (N,) True for spots whose score is too low.
    """

    @property
    def score(self) -> NDArray[np.float32]: ...
    @property
    def unreliable(self) -> NDArray[np.bool_]: ...
    def reasons(self, row: int) -> tuple[str, ...]:
        """Reasons why a spot is unreliable, the most important first."""
        ...


@dataclass(frozen=True)
class Prediction:
    """Predicted expression of a panel at the spots of a target.

    Attributes
    ----------
    values : ndarray
        (N, G) float32 on the label scale; NaN until spot and gene are decoded.
    tokens : ndarray
        (N, D) float32 fused tokens, from which any gene can be decoded; NaN until predicted.
    provenance : dict
        JSON-able record of version, checkpoint hash, slide and parameters.
    zero_shot_symbols : tuple of str
        Symbols of the panel's last genes, which are predicted from their text alone and in
        standard deviations from their own mean; ``provenance["zero_shot"]`` has their expected
        correlation.
    failed_mask : ndarray
        (N,) spots that cannot be predicted because the slide is damaged there.
    qc_features : ndarray
        (N, E) float32 quality-control features, columns `QC_FEATURE_NAMES`; NaN until predicted.
    scores : tuple of GeneSetScore
        Gene sets that are shown like genes; they have no columns and are not saved.
    spread : ndarray or None
        (N, G) float32 standard deviations of the values, on the label scale;
        ``provenance["spread"]`` says of what. NaN for zero-shot genes, None where it was not asked
        for or the network has none.
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
    scores: tuple[GeneSetScore, ...] = ()
    spread: NDArray[np.float32] | None = None

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
        """Create a prediction without values; ``token_dim`` is the length of a fused token."""
        count = len(target.spots)
        return cls(
            target,
            panel,
            label_scale,
            np.full((count, len(panel)), np.nan, dtype=np.float32),
            np.full((count, token_dim), np.nan, dtype=np.float32),
            provenance,
            zero_shot_symbols,
            np.zeros(count, bool),
            np.full((count, len(QC_FEATURE_NAMES)), np.nan, dtype=np.float32),
        )

    @classmethod
    def create_placeholder(
        cls,
        target: Target,
        panel: Panel,
        label_scale: LabelScale,
        provenance: dict[str, Any],
        zero_shot_symbols: tuple[str, ...] = (),
    ) -> Prediction:
        """Create a prediction that stays empty; its arrays are read-only and take no memory."""
        count, nothing = len(target.spots), np.float32(np.nan)
        return cls(
            target,
            panel,
            label_scale,
            np.broadcast_to(nothing, (count, len(panel))),
            np.broadcast_to(nothing, (count, 1)),
            provenance,
            zero_shot_symbols,
            np.broadcast_to(np.False_, count),
            np.broadcast_to(nothing, (count, len(QC_FEATURE_NAMES))),
        )

    def apply_update(self, update: PredictionUpdate) -> None:
        """Set what a batch predicted; an update without rows changes nothing but failures."""
        self.failed_mask[update.failed_rows] = True
        if not len(update.rows):
            return
        if update.tokens is not None:
            self.tokens[update.rows] = update.tokens
            self.failed_mask[update.rows] = False
        if update.qc_features is not None:
            self.qc_features[update.rows] = update.qc_features
        if update.spread is not None and self.spread is not None:
            self.spread[update.rows] = update.spread
        self.set_gene_values(update.rows, update.values, update.gene_columns)

    def set_gene_values(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float32],
        gene_columns: Sequence[int] | None = None,
    ) -> None:
        """Set values (B, K) of rows (B,) and columns (K,), all columns when None."""
        if gene_columns is None:
            self.values[rows] = values
        else:
            self.values[np.ix_(rows, np.asarray(gene_columns, np.int64))] = values

    def copy_first_rows(self, other: Prediction) -> None:
        """Set the first rows to another prediction of the same genes, which has fewer spots."""
        rows = slice(len(other.values))
        self.values[rows], self.tokens[rows] = other.values, other.tokens
        self.failed_mask[rows], self.qc_features[rows] = other.failed_mask, other.qc_features

    @property
    def predicted_mask(self) -> NDArray[np.bool_]:
        """(N,) spots that are predicted, with or without decoded genes."""
        return np.asarray(np.isfinite(self.tokens[:, 0]))

    def has_gene(self, symbol: str | None) -> bool:
        """Return whether a symbol is a gene of the panel or a score of its genes."""
        return symbol in self.panel or self.find_score(symbol) is not None

    def find_score(self, symbol: str | None) -> GeneSetScore | None:
        """Return the gene set score of that symbol, if it can be computed."""
        found = (s for s in self.scores if s.symbol == symbol and s.is_in(self.panel))
        return next(found, None)

    def columns_of(self, symbol: str) -> list[int]:
        """Return the columns that the values of a gene, or of a score, are computed from."""
        score = self.find_score(symbol)
        return [self.panel.row(symbol)] if score is None else score.columns(self.panel)

    def find_undecoded_rows(self, columns: Sequence[int]) -> NDArray[np.int64]:
        """Predicted rows without a value of one of these columns."""
        known = np.isfinite(self.values[:, list(columns)]).all(axis=1)
        return np.flatnonzero(self.predicted_mask & ~known)

    def find_incomplete_columns(self) -> NDArray[np.int64]:
        """Columns without a value in some predicted row."""
        predicted = self.predicted_mask
        return np.flatnonzero(~np.isfinite(self.values[predicted]).all(axis=0))

    def get_gene_values(self, symbol: str) -> NDArray[np.float32]:
        """(N,) predicted values of one gene or score, NaN where there is none."""
        score = self.find_score(symbol)
        if score is None:
            return self.values[:, self.panel.row(symbol)]
        return score.combine(self.values[:, score.columns(self.panel)])

    def get_gene_spread(self, symbol: str, row: int) -> float:
        """Spread of a gene at a spot; NaN where there is none, as for a score."""
        if self.spread is None or self.find_score(symbol) is not None:
            return float("nan")
        return float(self.spread[row, self.panel.row(symbol)])

    def take(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Prediction:
        """Select rows by indices or a mask."""
        return replace(
            self,
            target=self.target.take(rows),
            values=self.values[rows],
            tokens=self.tokens[rows],
            failed_mask=self.failed_mask[rows],
            qc_features=self.qc_features[rows],
            spread=None if self.spread is None else self.spread[rows],
        )

    def select_predicted(self) -> Prediction:
        """Select the predicted spots of an incomplete prediction."""
        return self.take(self.predicted_mask)

    @property
    def spot_diameter_um(self) -> float:
        """Diameter of the spots in um, the side of their patch where it is unknown."""
        return self.target.spots.diameter_um or float(self.provenance["patch_um"])

    def get_value_kind(self, symbol: str) -> str:
        """The kind of a gene's values for names and legends."""
        return "predicted zero-shot" if symbol in self.zero_shot_symbols else "predicted"

    def get_value_units(self, symbol: str) -> str:
        """Units of a gene's values and, in a second line, a zero-shot gene's expected accuracy."""
        score = self.find_score(symbol)
        if score is not None:
            return score.formula
        if symbol not in self.zero_shot_symbols:
            return self.label_scale.name
        record = self.provenance["zero_shot"]
        return f"{record['units']}\n{record['expectation']}"

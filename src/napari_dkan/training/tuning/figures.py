"""Before, after and a ridge on the spots held out, and what that amounts to in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...expression.panel import Panel
from ..metrics import score_predictions
from ..ridge import RIDGE_PENALTIES, Float64Array, fit_ridge, compute_multi_scale_features
from .course import mean_gene_pcc
from .lesson import LabelMatrix, TrainingSection
from .split import Subset, HoldOutSplit

MIN_PCC_GAIN = 0.001  # of PCC-ALL; less is no difference
MAX_MSE_RATIO = 0.95  # of the squared error, which makes a better level

LabelsByName = Mapping[str, LabelMatrix]


@dataclass(frozen=True)
class FinetuneMetrics:
    """Numbers by method (before, after, ridge), genes by symbol; spots that were held out."""

    n_spots: int
    n_genes: int
    summaries: Mapping[str, Mapping[str, Any]]
    pcc_per_gene: Mapping[str, Mapping[str, float | None]]
    n_genes_better: int

    @property
    def pcc_gain(self) -> float:
        """In PCC-ALL; 0 where there is none."""
        before, after = (self.summaries[m]["pcc_all"] for m in ("before", "after"))
        return 0.0 if before is None or after is None else after - before

    @property
    def is_better(self) -> bool:
        """A higher PCC-ALL; with the same one, a clearly smaller squared error."""
        if abs(self.pcc_gain) >= MIN_PCC_GAIN:
            return self.pcc_gain > 0
        return self.summaries["after"]["mse"] < MAX_MSE_RATIO * self.summaries["before"]["mse"]

    def format_verdict(self, end_reason: str) -> str:
        """One plain sentence; end : why it ended, told where it diverged."""
        digits = 2 if abs(self.pcc_gain) >= 0.01 else 3
        before, after, ridge = (_format_pcc(self.summaries[m]["pcc_all"], digits) for m in _METHODS)
        mse = [f"{self.summaries[m]['mse']:.4f}" for m in ("before", "after")]
        where = f"on {self.n_spots} held-out spots"
        pcc = f"PCC-ALL {before} -> {after} {where} (ridge {ridge})"
        told = f"{end_reason[:1].upper()}{end_reason[1:]}, the best was kept: " if "diverged" in end_reason else ""
        if abs(self.pcc_gain) < MIN_PCC_GAIN and self.is_better:
            return (
                f"{told}better in level only: squared error {mse[0]} -> {mse[1]}, PCC-ALL stays "
                f"{after} {where} (ridge {ridge})"
            )
        if self.is_better:
            return f"{told}better on {self.n_genes_better} of {self.n_genes} genes, {pcc}"
        return (
            f"{told}it did not help: better on {self.n_genes_better} of {self.n_genes} genes, {pcc}; "
            "stay with the checkpoint as it was"
        )


_METHODS = ("before", "after", "ridge")


def compute_finetune_metrics(
    panel: Panel,
    lessons: Sequence[TrainingSection],
    part: Subset,
    predicted: Mapping[str, Sequence[LabelMatrix]],
    genes: np.ndarray,
) -> FinetuneMetrics:
    """predicted : by method, of each lesson's rows of the part, (n, G). genes : which to count."""
    used = [i for i, rows in enumerate(part.rows) if len(rows)]
    measured = {lessons[i].name: part.labels[i] for i in used}
    common = np.flatnonzero(
        genes & ~np.any([np.isnan(m).all(axis=0) for m in measured.values()], axis=0)
    )
    labels = {name: m[:, common] for name, m in measured.items()}
    scores = {
        method: score_predictions({lessons[i].name: each[i][:, common] for i in used}, labels)
        for method, each in predicted.items()
    }
    before, after = scores["before"].pcc_per_gene, scores["after"].pcc_per_gene
    return FinetuneMetrics(
        sum(len(part.rows[i]) for i in used),
        len(common),
        {m: s.to_summary() for m, s in scores.items()},
        {
            panel.symbols[g]: {m: _round_or_none(s.pcc_per_gene[i]) for m, s in scores.items()}
            for i, g in enumerate(common)
        },
        int((after - before > MIN_PCC_GAIN).sum()),  # a gene without either has none
    )


def predict_with_ridge(lessons: Sequence[TrainingSection], split: HoldOutSplit) -> list[LabelMatrix]:
    """The plain method on the same spots: fitted on those that teach, (n, G) of those reported.

    Its penalty is chosen on the same folds. A gene that no section measures stays 0.
    """
    inputs = [compute_multi_scale_features(le.encoded.neighbor_features.numpy(), le.section.mask.numpy()) for le in lessons]
    quality = np.zeros(len(RIDGE_PENALTIES))
    for taught, chosen in split.folds:
        for i, penalty in enumerate(RIDGE_PENALTIES):
            guess = _fit_and_predict_ridge(inputs, taught, chosen, penalty)
            values = [mean_gene_pcc(g, y) for g, y in zip(guess, chosen.labels, strict=True) if len(g)]
            quality[i] += np.nansum(values)
    return _fit_and_predict_ridge(inputs, split.train, split.test, RIDGE_PENALTIES[int(np.argmax(quality))])


def _fit_and_predict_ridge(inputs: Sequence[Float64Array], taught: Subset, asked: Subset, penalty: float) -> list[LabelMatrix]:
    x = np.concatenate([i[r] for i, r in zip(inputs, taught.rows, strict=True)])
    y = np.concatenate(taught.labels)
    y = np.where(np.isnan(y), np.nan_to_num(_column_means(y)), y)
    ridge = fit_ridge(x, y, penalty)
    return [ridge.predict(i[r]).astype(np.float32) for i, r in zip(inputs, asked.rows, strict=True)]


def _column_means(y: LabelMatrix) -> np.ndarray:
    known = ~np.isnan(y)
    return np.where(known, y, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _format_pcc(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _round_or_none(value: float) -> float | None:
    return None if value != value else round(float(value), 3)

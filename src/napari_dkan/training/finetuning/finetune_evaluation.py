"""Metrics on held-out spots before and after fine-tuning, the ridge baseline, and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...expression.panel import Panel
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble
from ...model.ridge_regression import compute_multi_scale_features
from ..baselines.linear_baselines import RIDGE_PENALTIES, Float64Array, fit_ridge
from ..metrics import score_predictions
from .add_genes import AddedGenes
from .hold_out_split import HoldOutSplit, Subset
from .training_section import LabelMatrix, TrainingSection
from .tuned_model import compute_spot_tokens
from .tuning_loop import mean_gene_pcc

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
        told = (
            f"{end_reason[:1].upper()}{end_reason[1:]}, the best was kept: "
            if "diverged" in end_reason
            else ""
        )
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


def predict_with_ridge(
    lessons: Sequence[TrainingSection], split: HoldOutSplit
) -> list[LabelMatrix]:
    """The plain method on the same spots: fitted on those that teach, (n, G) of those reported.

    Its penalty is chosen on the same folds. A gene that no section measures stays 0.
    """
    inputs = [
        compute_multi_scale_features(le.encoded.neighbor_features.numpy(), le.section.mask.numpy())
        for le in lessons
    ]
    quality = np.zeros(len(RIDGE_PENALTIES))
    for taught, chosen in split.folds:
        for i, penalty in enumerate(RIDGE_PENALTIES):
            guess = _fit_and_predict_ridge(inputs, taught, chosen, penalty)
            values = [
                mean_gene_pcc(g, y) for g, y in zip(guess, chosen.labels, strict=True) if len(g)
            ]
            quality[i] += np.nansum(values)
    return _fit_and_predict_ridge(
        inputs, split.train, split.test, RIDGE_PENALTIES[int(np.argmax(quality))]
    )


def _fit_and_predict_ridge(
    inputs: Sequence[Float64Array], taught: Subset, asked: Subset, penalty: float
) -> list[LabelMatrix]:
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


NetworkOrEnsemble = DKAN | Ensemble


def predict_with_original(
    network: NetworkOrEnsemble, lessons: Sequence[TrainingSection], part: Subset, grown: AddedGenes
) -> list[LabelMatrix]:
    """Of the part's rows, on the label scale; new genes as their text alone places them."""
    return [
        values[rows]
        for values, rows in zip(_predict_sections(network, lessons, grown), part.rows, strict=True)
    ]


def measure_forgetting(
    before: NetworkOrEnsemble, after: NetworkOrEnsemble, lessons: Sequence[TrainingSection]
) -> dict[str, Any]:
    """By section, PCC-ALL and squared error of both on all its spots, over the genes that were
    in the panel before; {} without sections."""
    pairs = zip(
        lessons, _predict_sections(before, lessons), _predict_sections(after, lessons), strict=True
    )
    return {lesson.name: _compare_on_section(lesson, old, new) for lesson, old, new in pairs}


def _compare_on_section(
    lesson: TrainingSection, before: LabelMatrix, after: LabelMatrix
) -> dict[str, Any]:
    known = np.flatnonzero(lesson.is_gene_measured[: before.shape[1]])
    labels = lesson.smooth_labels(np.arange(len(lesson)))[:, known]
    old, new = before[:, known], after[:, known]
    return {
        "spots": len(lesson),
        "pcc_all_before": _round4_or_none(mean_gene_pcc(old, labels)),
        "pcc_all_after": _round4_or_none(mean_gene_pcc(new, labels)),
        "mse_before": _round4_or_none(float(np.mean((old - labels) ** 2))),
        "mse_after": _round4_or_none(float(np.mean((new - labels) ** 2))),
    }


@torch.no_grad()
def _predict_sections(
    network: NetworkOrEnsemble, lessons: Sequence[TrainingSection], grown: AddedGenes | None = None
) -> list[LabelMatrix]:
    """(N, G) of each lesson: the mean of the members, and of new genes what text tells."""
    members = network.member_networks if isinstance(network, Ensemble) else [network]
    new = None if grown is None else grown.features
    each = []
    for member in members:
        views = compute_spot_tokens(member, lessons)
        values = [member.decode(v.fused.z) for v in views]
        if new is not None:
            tokens = member.encode_new_genes(new)
            values = [
                torch.cat([old, member.decode_gene_tokens(v.fused.z, tokens)], dim=1)
                for old, v in zip(values, views, strict=True)
            ]
        each.append([v.numpy() for v in values])
    return [np.mean(of_one, axis=0) for of_one in zip(*each, strict=True)]


def _round4_or_none(value: float) -> float | None:
    return round(value, 4) if value == value else None

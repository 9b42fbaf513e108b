"""Metrics on held-out spots before and after fine-tuning, the ridge baseline, and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...expression.panel import Panel
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble, list_members
from ...model.ridge_regression import Float64Array
from ..baselines import RIDGE_PENALTIES, fit_ridge, multi_scale_tile_features
from ..metrics import mean_gene_pcc, nanmean_over_rows, round_or_none
from ..prediction_scores import score_predictions
from .add_genes import AddedGenes
from .hold_out_split import HoldOutSplit, Subset
from .training_section import LabelMatrix, TrainingSection
from .tuned_model import compute_spot_tokens

MIN_PCC_GAIN = 0.001  # of PCC-ALL; a smaller change is no difference
MAX_MSE_RATIO = 0.95  # of the squared error; below, the level is better
_METHODS = ("before", "after", "ridge")


@dataclass(frozen=True)
class FinetuneMetrics:
    """Metrics on the test spots.

    Attributes
    ----------
    n_spots, n_genes
        Number of test spots and of genes counted.
    summaries
        Metrics by method: before, after, ridge.
    pcc_per_gene
        PCC by symbol and method.
    n_genes_better
        Number of genes with a higher PCC after fine-tuning.
    """

    n_spots: int
    n_genes: int
    summaries: Mapping[str, Mapping[str, Any]]
    pcc_per_gene: Mapping[str, Mapping[str, float | None]]
    n_genes_better: int

    @property
    def pcc_gain(self) -> float:
        """Gain in PCC-ALL; 0 where it is not defined."""
        before, after = (self.summaries[m]["pcc_all"] for m in ("before", "after"))
        return 0.0 if before is None or after is None else after - before

    @property
    def is_better(self) -> bool:
        """Whether PCC-ALL is higher or, at the same PCC-ALL, the squared error clearly smaller."""
        if abs(self.pcc_gain) >= MIN_PCC_GAIN:
            return self.pcc_gain > 0
        limit = MAX_MSE_RATIO * self.summaries["before"]["mse"]
        return bool(self.summaries["after"]["mse"] < limit)

    def format_verdict(self, end_reason: str) -> str:
        """Format the outcome in one sentence, with the reason of the end where it diverged."""
        digits = 2 if abs(self.pcc_gain) >= 0.01 else 3
        before, after, ridge = (_format_pcc(self.summaries[m]["pcc_all"], digits) for m in _METHODS)
        mse = [f"{self.summaries[m]['mse']:.4f}" for m in ("before", "after")]
        spots = f"on {self.n_spots} held-out spots"
        pcc = f"PCC-ALL {before} -> {after} {spots} (ridge {ridge})"
        genes = f"better on {self.n_genes_better} of {self.n_genes} genes"
        end = ""
        if "diverged" in end_reason:
            end = f"{end_reason[:1].upper()}{end_reason[1:]}, the best was kept: "
        if abs(self.pcc_gain) < MIN_PCC_GAIN and self.is_better:
            return (
                f"{end}better in level only: squared error {mse[0]} -> {mse[1]}, PCC-ALL stays "
                f"{after} {spots} (ridge {ridge})"
            )
        if self.is_better:
            return f"{end}{genes}, {pcc}"
        return f"{end}it did not help: {genes}, {pcc}; stay with the checkpoint as it was"


def _format_pcc(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def compute_finetune_metrics(
    panel: Panel,
    sections: Sequence[TrainingSection],
    subset: Subset,
    predicted: Mapping[str, Sequence[LabelMatrix]],
    genes: NDArray[np.bool_],
) -> FinetuneMetrics:
    """Compute metrics on a subset.

    Parameters
    ----------
    predicted
        By method, predictions (n, G) of the subset's rows of each section.
    genes
        (G,) genes to count.
    """
    used = [i for i, rows in enumerate(subset.rows) if len(rows)]
    measured = {sections[i].name: subset.labels[i] for i in used}
    is_unmeasured = np.any([np.isnan(m).all(axis=0) for m in measured.values()], axis=0)
    common = np.flatnonzero(genes & ~is_unmeasured)
    labels = {name: m[:, common] for name, m in measured.items()}
    scores = {
        method: score_predictions({sections[i].name: values[i][:, common] for i in used}, labels)
        for method, values in predicted.items()
    }
    before, after = scores["before"].pcc_per_gene, scores["after"].pcc_per_gene
    return FinetuneMetrics(
        sum(len(subset.rows[i]) for i in used),
        len(common),
        {m: s.to_summary() for m, s in scores.items()},
        {
            panel.symbols[g]: {m: round_or_none(s.pcc_per_gene[i], 3) for m, s in scores.items()}
            for i, g in enumerate(common)
        },
        int((after - before > MIN_PCC_GAIN).sum()),  # False for NaN
    )


def predict_with_ridge(
    sections: Sequence[TrainingSection], split: HoldOutSplit
) -> list[LabelMatrix]:
    """Predict the test spots with a ridge regression fitted to the training spots.

    Its penalty is chosen on the same folds as the epoch. A gene that no section measures is 0.

    Returns
    -------
    Predictions (n, G) of the test spots of each section.
    """
    inputs = [multi_scale_tile_features(s.encoded) for s in sections]
    quality = np.zeros(len(RIDGE_PENALTIES))
    for train, validation in split.folds:
        for i, penalty in enumerate(RIDGE_PENALTIES):
            predicted = _fit_and_predict_ridge(inputs, train, validation, penalty)
            pccs = [
                mean_gene_pcc(p, y)
                for p, y in zip(predicted, validation.labels, strict=True)
                if len(p)
            ]
            quality[i] += np.nansum(pccs)
    best = RIDGE_PENALTIES[int(np.argmax(quality))]
    return _fit_and_predict_ridge(inputs, split.train, split.test, best)


def _fit_and_predict_ridge(
    inputs: Sequence[Float64Array], train: Subset, test: Subset, penalty: float
) -> list[LabelMatrix]:
    x = np.concatenate([i[r] for i, r in zip(inputs, train.rows, strict=True)])
    y = np.concatenate(train.labels)
    y = np.where(np.isnan(y), np.nan_to_num(nanmean_over_rows(y)), y)
    ridge = fit_ridge(x, y, penalty)
    return [ridge.predict(i[r]).astype(np.float32) for i, r in zip(inputs, test.rows, strict=True)]


def predict_with_original(
    network: DKAN | Ensemble, sections: Sequence[TrainingSection], subset: Subset, added: AddedGenes
) -> list[LabelMatrix]:
    """Predict a subset with the original network; added genes by their text alone.

    Returns
    -------
    Predictions (n, G) on the label scale of the subset's rows of each section.
    """
    predictions = _predict_sections(network, sections, added)
    return [values[rows] for values, rows in zip(predictions, subset.rows, strict=True)]


def measure_forgetting(
    before: DKAN | Ensemble, after: DKAN | Ensemble, sections: Sequence[TrainingSection]
) -> dict[str, Any]:
    """Compare two networks on sections that are not trained on.

    Returns
    -------
    By section, PCC-ALL and squared error of both on all spots, over the genes of the panel before
    fine-tuning.
    """
    predictions = zip(
        sections,
        _predict_sections(before, sections),
        _predict_sections(after, sections),
        strict=True,
    )
    return {
        section.name: _compare_on_section(section, old, new) for section, old, new in predictions
    }


def _compare_on_section(
    section: TrainingSection, before: LabelMatrix, after: LabelMatrix
) -> dict[str, Any]:
    genes = np.flatnonzero(section.is_gene_measured[: before.shape[1]])
    labels = section.smooth_labels(np.arange(len(section)))[:, genes]
    old, new = before[:, genes], after[:, genes]
    return {
        "spots": len(section),
        "pcc_all_before": round_or_none(mean_gene_pcc(old, labels), 4),
        "pcc_all_after": round_or_none(mean_gene_pcc(new, labels), 4),
        "mse_before": round_or_none(float(np.mean((old - labels) ** 2)), 4),
        "mse_after": round_or_none(float(np.mean((new - labels) ** 2)), 4),
    }


@torch.no_grad()
def _predict_sections(
    network: DKAN | Ensemble, sections: Sequence[TrainingSection], added: AddedGenes | None = None
) -> list[LabelMatrix]:
    """Predict all spots (N, G) of each section by the mean of the members."""
    new_features = None if added is None else added.features
    by_member = []
    for member in list_members(network):
        z = [t.fused.z for t in compute_spot_tokens(member, sections)]
        values = [member.decode(v) for v in z]
        if new_features is not None:
            gene_tokens = member.encode_new_genes(new_features)
            values = [
                torch.cat([old, member.decode_gene_tokens(v, gene_tokens)], dim=1)
                for old, v in zip(values, z, strict=True)
            ]
        by_member.append([v.numpy() for v in values])
    return [np.mean(members, axis=0) for members in zip(*by_member, strict=True)]

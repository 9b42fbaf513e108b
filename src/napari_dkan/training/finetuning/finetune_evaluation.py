"""Metrics on held-out spots before and after fine-tuning, the ridge baseline, and forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...expression.panel import Panel
from ...model.network.network_interface import ExpressionNetwork
from ...model.ridge_regression import Float64Array
from ..baselines import RIDGE_PENALTIES, fit_ridge, multi_scale_tile_features
from ..depth_metrics import depth_partial_pcc
from ..depth_reference import DepthReference
from ..evaluation.crossval_report import tabulate_depth_partial
from ..metrics import mean_gene_pcc, nanmean_or_none, nanmean_over_rows, round_or_none
from ..prediction_scores import DEPTH_ALONE, score_depth_alone, score_predictions
from .add_genes import AddedGenes
from .hold_out_split import HoldOutSplit, Subset
from .training_section import LabelMatrix, TrainingSection
from .tuned_model import compute_spot_tokens
from .tuning_loop import is_premature_end

MIN_PCC_GAIN = 0.001  # of a mean PCC; a smaller change is no difference
MAX_MSE_RATIO = 0.95  # of the squared error; below, the level is better
MAX_PCC_LOSS = 0.01  # that a better level may cost
_METHODS = ("before", "after", "ridge")


@dataclass(frozen=True)
class FinetuneMetrics:
    """Metrics on the test spots.

    Attributes
    ----------
    n_spots, n_genes
        Number of test spots and of genes counted: those whose counts are enough to be judged.
    summaries
        Metrics by method: before, after, ridge, and the depth of the spots alone.
    pcc_per_gene
        PCC by symbol and method.
    depth_partial_per_gene
        Depth-partial PCC by symbol and method, with the ceiling and whether the gene can be
        judged. {} where the counts of a section are not known.
    n_genes_better
        Number of the counted genes with a higher depth-partial PCC after fine-tuning.
    """

    n_spots: int
    n_genes: int
    summaries: Mapping[str, Mapping[str, Any]]
    pcc_per_gene: Mapping[str, Mapping[str, float | None]]
    depth_partial_per_gene: Mapping[str, Mapping[str, float | bool | None]]
    n_genes_better: int

    @property
    def decided_by(self) -> str:
        """Name of the figure that decides: depth-partial PCC where the counts are known."""
        return "depth_partial_pcc" if self.depth_partial_per_gene else "pcc_all"

    @property
    def pcc_gain(self) -> float:
        """Gain in the figure that decides; 0 where it is not defined."""
        before, after = (self.summaries[m][self.decided_by] for m in ("before", "after"))
        return 0.0 if before is None or after is None else after - before

    @property
    def is_better(self) -> bool:
        """Whether that figure is higher or, about as high, the squared error clearly smaller."""
        return self.pcc_gain >= MIN_PCC_GAIN or self._is_better_in_level

    @property
    def _is_better_in_level(self) -> bool:
        limit = MAX_MSE_RATIO * self.summaries["before"]["mse"]
        return self.pcc_gain > -MAX_PCC_LOSS and bool(self.summaries["after"]["mse"] < limit)

    def format_verdict(self, end_reason: str) -> str:
        """Format the outcome in one sentence, with the reason of a premature end."""
        mse = [f"{self.summaries[m]['mse']:.4f}" for m in _METHODS]
        spots = f"on {self.n_spots} held-out spots"
        before, after, ridge = self._format_pccs(self.decided_by)
        compared = f"ridge {ridge}"
        title, plain = "PCC-ALL", ""
        if self.depth_partial_per_gene:
            title = "depth-partial PCC"
            ceiling = self.summaries["after"]["ceiling"]
            compared += "" if ceiling is None else f", at most {ceiling:.2f}"
            old, new, plain_ridge = self._format_pccs("pcc_all")
            plain = f"; PCC-ALL {old} -> {new} (ridge {plain_ridge}"
            alone = self.summaries[DEPTH_ALONE]["pcc_all"]
            plain += ")" if alone is None else f", depth alone {alone:.2f})"
        genes = f"better on {self.n_genes_better} of {self.n_genes} genes"
        if not self.n_genes:
            genes = "no gene has enough counts to be judged alone"
        end = ""
        if is_premature_end(end_reason):
            end = f"{end_reason[:1].upper()}{end_reason[1:]}, the best was kept: "
        if self.pcc_gain < MIN_PCC_GAIN and self.is_better:
            stays = abs(self.pcc_gain) < MIN_PCC_GAIN
            change = f"stays {after}" if stays else f"{before} -> {after}"
            return (
                f"{end}better in level only: squared error {mse[0]} -> {mse[1]} (ridge {mse[2]}), "
                f"{title} {change} {spots} ({compared}){plain}"
            )
        pcc = (
            f"{title} {before} -> {after} {spots} ({compared}){plain}; squared error {mse[0]} -> "
            f"{mse[1]} (ridge {mse[2]})"
        )
        if self.is_better:
            return f"{end}{genes}, {pcc}"
        return f"{end}it did not help: {genes}, {pcc}; stay with the checkpoint as it was"

    def _format_pccs(self, figure: str) -> list[str]:
        """Format a figure of each method, to three digits where two would hide the change."""
        values = [self.summaries[m][figure] for m in _METHODS]
        before, after = values[:2]
        changed = before is None or after is None or abs(after - before) >= 0.01
        digits = 2 if changed else 3
        return ["none" if v is None else f"{v:.{digits}f}" for v in values]


def compute_finetune_metrics(
    panel: Panel,
    sections: Sequence[TrainingSection],
    split: HoldOutSplit,
    predicted: Mapping[str, Sequence[LabelMatrix]],
    genes: NDArray[np.bool_],
) -> FinetuneMetrics:
    """Compute metrics on the test spots of a split.

    Parameters
    ----------
    predicted
        By method, predictions (n, G) of the test rows of each section.
    genes
        (G,) genes to count.
    """
    subset = split.test
    used = [i for i, rows in enumerate(subset.rows) if len(rows)]
    measured = {sections[i].name: subset.labels[i] for i in used}
    is_unmeasured = np.any([np.isnan(m).all(axis=0) for m in measured.values()], axis=0)
    common = np.flatnonzero(genes & ~is_unmeasured)
    labels = {name: m[:, common] for name, m in measured.items()}
    references = _make_depth_references(sections, split, common)
    scores = {
        method: score_predictions(
            {sections[i].name: values[i][:, common] for i in used}, labels, references
        )
        for method, values in predicted.items()
    }
    summaries = {m: s.to_summary() for m, s in scores.items()}
    if references:
        summaries[DEPTH_ALONE] = score_depth_alone(labels, references).to_summary()
    before, after = scores["before"], scores["after"]
    gains, is_counted = after.pcc_per_gene - before.pcc_per_gene, np.ones(len(common), bool)
    if before.depth is not None and after.depth is not None:
        gains = after.depth.partial_per_gene - before.depth.partial_per_gene
        is_counted = after.depth.is_judged_per_gene
    symbols = [panel.symbols[g] for g in common]
    return FinetuneMetrics(
        sum(len(subset.rows[i]) for i in used),
        int(is_counted.sum()),
        summaries,
        {
            symbol: {m: round_or_none(s.pcc_per_gene[i], 3) for m, s in scores.items()}
            for i, symbol in enumerate(symbols)
        },
        tabulate_depth_partial(scores, symbols),
        int((gains[is_counted] > MIN_PCC_GAIN).sum()),  # False for NaN
    )


def _make_depth_references(
    sections: Sequence[TrainingSection], split: HoldOutSplit, genes: NDArray[np.integer]
) -> dict[str, DepthReference]:
    """Return the counts of the sections with test spots; {} where one's are not known.

    The mean profile is that of these genes over all training spots.
    """
    counts = [s.counts for s in sections]
    used = [i for i, rows in enumerate(split.test.rows) if len(rows)]
    profile = np.zeros(len(genes))
    columns = [np.searchsorted(np.flatnonzero(s.is_gene_measured), genes) for s in sections]
    for c, own, rows, section in zip(counts, columns, split.train.rows, sections, strict=True):
        if c is not None and section.is_gene_measured[genes].all():
            profile += c.values[rows][:, own].sum(axis=0, dtype=np.float64)
    references = {}
    for i in used:
        found = counts[i]
        if found is None:
            return {}
        mean_profile = np.zeros(found.values.shape[1])
        mean_profile[columns[i]] = profile
        references[sections[i].name] = DepthReference(
            found, mean_profile, split.test.rows[i], columns[i]
        )
    return references


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
    network: ExpressionNetwork,
    sections: Sequence[TrainingSection],
    subset: Subset,
    added: AddedGenes,
) -> list[LabelMatrix]:
    """Predict a subset with the original network; added genes by their text alone.

    Returns
    -------
    Predictions (n, G) on the label scale of the subset's rows of each section.
    """
    predictions = _predict_sections(network, sections, added)
    return [values[rows] for values, rows in zip(predictions, subset.rows, strict=True)]


def measure_forgetting(
    before: ExpressionNetwork, after: ExpressionNetwork, sections: Sequence[TrainingSection]
) -> dict[str, Any]:
    """Compare two networks on sections that are not trained on.

    Returns
    -------
    By section, depth-partial PCC, PCC-ALL and squared error of both on all spots, over the genes
    of the panel before fine-tuning.
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
        **_partial_before_and_after(section, old, new, labels),
        "pcc_all_before": round_or_none(mean_gene_pcc(old, labels), 4),
        "pcc_all_after": round_or_none(mean_gene_pcc(new, labels), 4),
        "mse_before": round_or_none(float(np.mean((old - labels) ** 2)), 4),
        "mse_after": round_or_none(float(np.mean((new - labels) ** 2)), 4),
    }


def _partial_before_and_after(
    section: TrainingSection, old: LabelMatrix, new: LabelMatrix, labels: LabelMatrix
) -> dict[str, float | None]:
    counts = section.counts
    if counts is None:
        return {}
    pairs = (("before", old), ("after", new))
    return {
        f"depth_partial_{when}": nanmean_or_none(depth_partial_pcc(values, labels, counts.depth))
        for when, values in pairs
    }


def predict_subset(
    network: ExpressionNetwork, sections: Sequence[TrainingSection], subset: Subset
) -> list[LabelMatrix]:
    """Predict (n, G) the subset's rows of each section."""
    predictions = _predict_sections(network, sections)
    return [values[rows] for values, rows in zip(predictions, subset.rows, strict=True)]


@torch.no_grad()
def _predict_sections(
    network: ExpressionNetwork, sections: Sequence[TrainingSection], added: AddedGenes | None = None
) -> list[LabelMatrix]:
    """Predict all spots (N, G) of each section."""
    new_features = None if added is None else added.features
    gene_tokens = None if new_features is None else network.encode_new_genes(new_features)
    predictions = []
    for tokens in compute_spot_tokens(network, sections):
        values = network.decode(tokens.fused.z)
        if gene_tokens is not None:
            new = network.decode_gene_tokens(tokens.fused.z, gene_tokens)
            values = torch.cat([values, new], dim=1)
        predictions.append(values.cpu().numpy())
    return predictions

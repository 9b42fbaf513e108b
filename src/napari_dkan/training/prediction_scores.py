"""Scores of predictions over test sections: correlations, errors, and what depth cannot earn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .depth_metrics import predict_with_depth
from .depth_reference import DepthReference
from .metrics import (
    FloatingArray,
    gene_pcc,
    nanmean_or_none,
    nanmean_over_rows,
    round_or_none,
)
from .noise_ceiling import share_of_attainable

N_TOP_GENES = 50  # genes in HPG, HEG and HVG
DEPTH_ALONE = "depth_alone"  # the baseline that predicts every gene by the measured depth


@dataclass(frozen=True, eq=False)
class DepthScores:
    """Scores of one method that depth alone cannot earn, over S sections and G genes.

    Attributes
    ----------
    partial
        (S, G) depth-partial PCC, NaN where undefined.
    ceiling
        (S, G) noise ceilings.
    is_judged
        (S, G) whether a gene can be judged in a section.
    deviance, deviance_over_neighbors
        (S,) deviance explained, of single spots and of counts summed over their neighbourhood;
        NaN without a mean profile.
    """

    partial: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    is_judged: NDArray[np.bool_]
    deviance: NDArray[np.float64]
    deviance_over_neighbors: NDArray[np.float64]

    @property
    def partial_per_gene(self) -> NDArray[np.float64]:
        """(G,) mean over the sections in which it is defined."""
        return nanmean_over_rows(self.partial)

    @property
    def ceiling_per_gene(self) -> NDArray[np.float64]:
        """(G,) mean over the sections in which it is defined."""
        return nanmean_over_rows(self.ceiling)

    @property
    def is_judged_per_gene(self) -> NDArray[np.bool_]:
        """(G,) whether a gene can be judged in any of the sections."""
        return np.asarray(self.is_judged.any(axis=0))

    @property
    def share(self) -> float:
        """Share of the attainable: mean depth-partial PCC by mean ceiling."""
        return share_of_attainable(self.partial, self.ceiling)

    def to_summary(self, sections: tuple[str, ...]) -> dict[str, Any]:
        """Summarize for reports and cards; a number that is not defined is None."""
        return {
            "depth_partial_pcc": nanmean_or_none(self.partial_per_gene),
            "ceiling": nanmean_or_none(self.ceiling_per_gene),
            "share_of_attainable": round_or_none(self.share, 4),
            "deviance_explained": nanmean_or_none(self.deviance),
            "deviance_explained_3x3": nanmean_or_none(self.deviance_over_neighbors),
            "genes_not_judged": int((~self.is_judged_per_gene).sum()),
            "depth_partial_pcc_per_section": {
                name: nanmean_or_none(row) for name, row in zip(sections, self.partial, strict=True)
            },
        }


@dataclass(frozen=True)
class PredictionScores:
    """Scores of one method over the test sections.

    Attributes
    ----------
    sections
        Names of the S sections, in the order of the rows below.
    pcc
        (S, G) correlations, NaN where a gene is constant in a section.
    mse, mae
        (S,) means over spots and genes.
    heg, hvg
        Columns of the 50 genes of highest mean and of highest variance of the test labels.
    depth
        Scores that depth cannot earn; None where the counts of a section are unknown.
    """

    sections: tuple[str, ...]
    pcc: NDArray[np.float64]
    mse: NDArray[np.float64]
    mae: NDArray[np.float64]
    heg: NDArray[np.int64]
    hvg: NDArray[np.int64]
    depth: DepthScores | None = None

    @property
    def pcc_per_gene(self) -> NDArray[np.float64]:
        """(G,) mean over the sections in which the gene has a correlation, else NaN."""
        return nanmean_over_rows(self.pcc)

    @property
    def n_undefined(self) -> int:
        """Number of gene and section pairs without a correlation."""
        return int(np.isnan(self.pcc).sum())

    def to_summary(self) -> dict[str, Any]:
        """Summarize for reports and cards; a number that is not defined is None."""
        genes = self.pcc_per_gene
        best = np.sort(genes[~np.isnan(genes)])[::-1][:N_TOP_GENES]
        per_section = {
            name: nanmean_or_none(row) for name, row in zip(self.sections, self.pcc, strict=True)
        }
        return {
            "pcc_all": nanmean_or_none(genes),
            "pcc_hpg": nanmean_or_none(best),
            "pcc_heg": nanmean_or_none(genes[self.heg]),
            "pcc_hvg": nanmean_or_none(genes[self.hvg]),
            "mse": nanmean_or_none(self.mse),
            "mae": nanmean_or_none(self.mae),
            "pcc_all_per_section": per_section,
            "gene_section_pairs_without_pcc": self.n_undefined,
            "genes_without_pcc": int(np.isnan(genes).sum()),
            **({} if self.depth is None else self.depth.to_summary(self.sections)),
        }


def score_predictions(
    predicted: Mapping[str, FloatingArray],
    measured: Mapping[str, FloatingArray],
    references: Mapping[str, DepthReference] | None = None,
) -> PredictionScores:
    """Score predictions by section against the labels of these sections.

    Parameters
    ----------
    predicted, measured
        (N, G) values on the label scale, by name of the section.
    references
        Counts behind the labels. Where one of a predicted section is missing, the scores have
        no `depth`.
    """
    names = tuple(predicted)
    pairs = [(predicted[n], measured[n]) for n in names]
    labels = np.concatenate([m for _, m in pairs])
    return PredictionScores(
        names,
        np.stack([gene_pcc(p, m) for p, m in pairs]),
        np.array([float(np.mean((p - m) ** 2)) for p, m in pairs]),
        np.array([float(np.mean(np.abs(p - m))) for p, m in pairs]),
        _top_gene_rows(labels.mean(axis=0)),
        _top_gene_rows(labels.var(axis=0)),
        _score_beside_depth(predicted, measured, references or {}),
    )


def score_depth_alone(
    measured: Mapping[str, FloatingArray], references: Mapping[str, DepthReference]
) -> PredictionScores:
    """Score the measured depth of each spot as the prediction of every gene.

    It is no prediction from the image: it says how far a correlation goes without knowing any
    gene. It is on no label scale, so it has no errors and explains no deviance.
    """
    predicted = {
        name: predict_with_depth(references[name].depth, labels.shape[1])
        for name, labels in measured.items()
    }
    scores = score_predictions(predicted, measured, references)
    assert scores.depth is not None
    undefined = np.full(len(measured), np.nan)
    depth = replace(scores.depth, deviance=undefined, deviance_over_neighbors=undefined)
    return replace(scores, mse=undefined, mae=undefined, depth=depth)


def _score_beside_depth(
    predicted: Mapping[str, FloatingArray],
    measured: Mapping[str, FloatingArray],
    references: Mapping[str, DepthReference],
) -> DepthScores | None:
    if not all(name in references for name in predicted):
        return None
    used = {name: references[name] for name in predicted}
    return DepthScores(
        np.stack([r.partial_pcc(predicted[n], measured[n]) for n, r in used.items()]),
        np.stack([r.ceiling.values for r in used.values()]),
        np.stack([r.ceiling.is_judged for r in used.values()]),
        np.array([r.deviance_explained(predicted[n]) for n, r in used.items()]),
        np.array([r.deviance_explained(predicted[n], True) for n, r in used.items()]),
    )


def _top_gene_rows(values: FloatingArray) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")[:N_TOP_GENES].astype(np.int64)

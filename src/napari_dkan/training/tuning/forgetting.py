"""What was predicted before, and what is lost on sections that were not taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...model.ensemble import Ensemble
from ...model.network import DKAN
from .course import mean_gene_pcc
from .growth import AddedGenes
from .lesson import LabelMatrix, TrainingSection
from .pupil import compute_spot_tokens
from .split import Subset

NetworkOrEnsemble = DKAN | Ensemble


def predict_with_original(
    network: NetworkOrEnsemble, lessons: Sequence[TrainingSection], part: Subset, grown: AddedGenes
) -> list[LabelMatrix]:
    """Of the part's rows, on the label scale; new genes as their text alone places them."""
    return [
        values[rows]
        for values, rows in zip(_predict_sections(network, lessons, grown), part.rows, strict=True)
    ]


def measure_forgetting(before: NetworkOrEnsemble, after: NetworkOrEnsemble, lessons: Sequence[TrainingSection]) -> dict[str, Any]:
    """By section, PCC-ALL and squared error of both on all its spots, over the genes that were
    in the panel before; {} without sections."""
    pairs = zip(lessons, _predict_sections(before, lessons), _predict_sections(after, lessons), strict=True)
    return {lesson.name: _compare_on_section(lesson, old, new) for lesson, old, new in pairs}


def _compare_on_section(lesson: TrainingSection, before: LabelMatrix, after: LabelMatrix) -> dict[str, Any]:
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

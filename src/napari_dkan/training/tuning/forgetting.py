"""What was predicted before, and what is lost on sections that were not taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...model.ensemble import Ensemble
from ...model.network import DKAN
from .course import mean_pcc
from .growth import Grown
from .lesson import Labels, Lesson
from .pupil import views_of
from .split import Part

Members = DKAN | Ensemble


def predict_before(
    network: Members, lessons: Sequence[Lesson], part: Part, grown: Grown
) -> list[Labels]:
    """Of the part's rows, on the label scale; new genes as their text alone places them."""
    return [
        values[rows]
        for values, rows in zip(_values(network, lessons, grown), part.rows, strict=True)
    ]


def forgetting(before: Members, after: Members, lessons: Sequence[Lesson]) -> dict[str, Any]:
    """By section, PCC-ALL and squared error of both on all its spots, over the genes that were
    in the panel before; {} without sections."""
    pairs = zip(lessons, _values(before, lessons), _values(after, lessons), strict=True)
    return {lesson.name: _change(lesson, old, new) for lesson, old, new in pairs}


def _change(lesson: Lesson, before: Labels, after: Labels) -> dict[str, Any]:
    known = np.flatnonzero(lesson.measured[: before.shape[1]])
    labels = lesson.labels(np.arange(len(lesson)))[:, known]
    old, new = before[:, known], after[:, known]
    return {
        "spots": len(lesson),
        "pcc_all_before": _four(mean_pcc(old, labels)),
        "pcc_all_after": _four(mean_pcc(new, labels)),
        "mse_before": _four(float(np.mean((old - labels) ** 2))),
        "mse_after": _four(float(np.mean((new - labels) ** 2))),
    }


@torch.no_grad()
def _values(
    network: Members, lessons: Sequence[Lesson], grown: Grown | None = None
) -> list[Labels]:
    """(N, G) of each lesson: the mean of the members, and of new genes what text tells."""
    members = network.all_members if isinstance(network, Ensemble) else [network]
    new = None if grown is None else grown.features
    each = []
    for member in members:
        views = views_of(member, lessons)
        values = [member.decode(v.fused.z) for v in views]
        if new is not None:
            tokens = member.text_token_of(new)
            values = [
                torch.cat([old, member.decode_tokens(v.fused.z, tokens)], dim=1)
                for old, v in zip(values, views, strict=True)
            ]
        each.append([v.numpy() for v in values])
    return [np.mean(of_one, axis=0) for of_one in zip(*each, strict=True)]


def _four(value: float) -> float | None:
    return round(value, 4) if value == value else None

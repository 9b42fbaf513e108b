"""Before, after and a ridge on the spots held out, and what that amounts to in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...expression.panel import Panel
from ..metrics import score
from ..ridge import PENALTIES, Array, fit_ridge, multi_scale
from .course import mean_pcc
from .lesson import Labels, Lesson
from .split import Part, Split

CLEAR = 0.001  # of PCC-ALL; less is no difference
LEVEL = 0.95  # of the squared error, which makes a better level

Predicted = Mapping[str, Labels]


@dataclass(frozen=True)
class Figures:
    """Numbers by method (before, after, ridge), genes by symbol; spots that were held out."""

    spots: int
    genes: int
    methods: Mapping[str, Mapping[str, Any]]
    per_gene: Mapping[str, Mapping[str, float | None]]
    genes_better: int

    @property
    def gain(self) -> float:
        """In PCC-ALL; 0 where there is none."""
        before, after = (self.methods[m]["pcc_all"] for m in ("before", "after"))
        return 0.0 if before is None or after is None else after - before

    @property
    def better(self) -> bool:
        """A higher PCC-ALL; with the same one, a clearly smaller squared error."""
        if abs(self.gain) >= CLEAR:
            return self.gain > 0
        return self.methods["after"]["mse"] < LEVEL * self.methods["before"]["mse"]

    def verdict(self, end: str) -> str:
        """One plain sentence; end : why it ended, told where it diverged."""
        digits = 2 if abs(self.gain) >= 0.01 else 3
        before, after, ridge = (_text(self.methods[m]["pcc_all"], digits) for m in _METHODS)
        mse = [f"{self.methods[m]['mse']:.4f}" for m in ("before", "after")]
        where = f"on {self.spots} held-out spots"
        pcc = f"PCC-ALL {before} -> {after} {where} (ridge {ridge})"
        told = f"{end[:1].upper()}{end[1:]}, the best was kept: " if "diverged" in end else ""
        if abs(self.gain) < CLEAR and self.better:
            return (
                f"{told}better in level only: squared error {mse[0]} -> {mse[1]}, PCC-ALL stays "
                f"{after} {where} (ridge {ridge})"
            )
        if self.better:
            return f"{told}better on {self.genes_better} of {self.genes} genes, {pcc}"
        return (
            f"{told}it did not help: better on {self.genes_better} of {self.genes} genes, {pcc}; "
            "stay with the checkpoint as it was"
        )


_METHODS = ("before", "after", "ridge")


def figures(
    panel: Panel,
    lessons: Sequence[Lesson],
    part: Part,
    predicted: Mapping[str, Sequence[Labels]],
    genes: np.ndarray,
) -> Figures:
    """predicted : by method, of each lesson's rows of the part, (n, G). genes : which to count."""
    used = [i for i, rows in enumerate(part.rows) if len(rows)]
    measured = {lessons[i].name: part.labels[i] for i in used}
    common = np.flatnonzero(
        genes & ~np.any([np.isnan(m).all(axis=0) for m in measured.values()], axis=0)
    )
    labels = {name: m[:, common] for name, m in measured.items()}
    scores = {
        method: score({lessons[i].name: each[i][:, common] for i in used}, labels)
        for method, each in predicted.items()
    }
    before, after = scores["before"].per_gene, scores["after"].per_gene
    return Figures(
        sum(len(part.rows[i]) for i in used),
        len(common),
        {m: s.summary() for m, s in scores.items()},
        {
            panel.symbols[g]: {m: _number(s.per_gene[i]) for m, s in scores.items()}
            for i, g in enumerate(common)
        },
        int((after - before > CLEAR).sum()),  # a gene without either has none
    )


def ridge_on(lessons: Sequence[Lesson], split: Split) -> list[Labels]:
    """The plain method on the same spots: fitted on those that teach, (n, G) of those reported.

    Its penalty is chosen on the same folds. A gene that no section measures stays 0.
    """
    inputs = [multi_scale(le.encoded.features.numpy(), le.section.mask.numpy()) for le in lessons]
    quality = np.zeros(len(PENALTIES))
    for taught, chosen in split.folds:
        for i, penalty in enumerate(PENALTIES):
            guess = _ridge(inputs, taught, chosen, penalty)
            values = [mean_pcc(g, y) for g, y in zip(guess, chosen.labels, strict=True) if len(g)]
            quality[i] += np.nansum(values)
    return _ridge(inputs, split.fit, split.report, PENALTIES[int(np.argmax(quality))])


def _ridge(inputs: Sequence[Array], taught: Part, asked: Part, penalty: float) -> list[Labels]:
    x = np.concatenate([i[r] for i, r in zip(inputs, taught.rows, strict=True)])
    y = np.concatenate(taught.labels)
    y = np.where(np.isnan(y), np.nan_to_num(_column_means(y)), y)
    ridge = fit_ridge(x, y, penalty)
    return [ridge.predict(i[r]).astype(np.float32) for i, r in zip(inputs, asked.rows, strict=True)]


def _column_means(y: Labels) -> np.ndarray:
    known = ~np.isnan(y)
    return np.where(known, y, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _text(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 3)

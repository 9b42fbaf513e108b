"""Candidates of a fine-tuning, compared inside the training spots, and the rule that keeps one.

Candidates are compared in the order from plain to trained. One replaces what is kept so far

1. if its depth-partial PCC is higher by more than the standard error of the gain;
2. or if the folds exclude a noticeable loss (the loss and its standard error together are at most
   0.005) and the squared error is smaller by more than the standard error of the reduction.

The penalty of a ridge regression is chosen in the same way, from strong to weak, and a trained
network is scored on each fold at the epoch that the other folds choose.

The folds are small. That a loss lies within its standard error does not mean that there is none,
so a smaller squared error is no reason to take the risk. Depth-partial figures come first because
labels of few counts follow the number of molecules, which every fit learns without knowing any
gene (docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...model.network.linear_path import LinearFit
from ...model.network.network_interface import ExpressionNetwork
from ..data.section_batches import SpotTokens
from ..depth_metrics import Float64Array, depth_partial_pcc
from ..metrics import nanmean, round_or_none
from .closed_form import ClosedFormFitter, FitOptions, SpotInputs
from .hold_out_split import HoldOutSplit, Subset
from .training_section import SpotRows, TrainingSection

UNCHANGED, LEVELS, CORRECTION, RIDGE = "unchanged", "levels", "correction", "ridge"
CANDIDATE_TITLES = {
    UNCHANGED: "the checkpoint as it was",
    LEVELS: "level and spread of the genes",
    CORRECTION: "a ridge regression that corrects the checkpoint",
    RIDGE: "a plain ridge regression",
    "heads": "trained heads",
    "decoder": "a trained decoder",
    "everything": "a trained network",
}
# Weights of a gene's old level, in spots.
LEVEL_PRIORS = (100.0, 30.0, 10.0, 0.0)
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0)
NOTICEABLE_LOSS = 0.005  # of a depth-partial PCC: what shows in two digits
SINGLE_FOLD_MARGIN = 0.005  # standard error where a single fold gives none
_ROUNDING = 1e-4  # smaller differences of figures are none

PredictRows = Callable[[int, SpotRows], NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class FoldScores:
    """Scores (F,) on the validation spots of each fold.

    Attributes
    ----------
    partial
        Depth-partial PCC, mean over the genes; NaN where it is not defined.
    mse
        Squared error.
    """

    partial: NDArray[np.float64]
    mse: NDArray[np.float64]

    @property
    def mean_partial(self) -> float:
        return nanmean(self.partial)

    @property
    def mean_mse(self) -> float:
        return nanmean(self.mse)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way to adapt the checkpoint, with its scores; options only of a closed-form fit."""

    name: str
    scores: FoldScores
    options: FitOptions | None = None

    def to_json(self) -> dict[str, Any]:
        """Summarize for the report."""
        options = self.options
        extra: dict[str, Any] = {}
        if options is not None:
            extra = {
                "level_prior_spots": round_or_none(options.level_prior, 1),
                "spread_adapted": options.adapts_spread,
                "penalty": round_or_none(options.penalty, 3),
            }
        return {
            "name": self.name,
            "depth_partial_pcc": round_or_none(self.scores.mean_partial, 4),
            "mse": round_or_none(self.scores.mean_mse, 5),
            **extra,
        }


@dataclass(frozen=True)
class CandidateChoice:
    """The candidate that is kept, and why in words."""

    candidate: Candidate
    reason: str


def score_subset(predict: PredictRows, subset: Subset) -> tuple[float, float]:
    """Compute depth-partial PCC and squared error of predictions of a subset."""
    partial: list[float] = []
    errors: list[NDArray[np.floating]] = []
    for i, (rows, labels) in enumerate(zip(subset.rows, subset.labels, strict=True)):
        if not len(rows):
            continue
        predicted = predict(i, rows)
        partial.append(nanmean(depth_partial_pcc(predicted, labels, subset.depth[i])))
        with np.errstate(over="ignore"):  # a training that diverges
            errors.append(np.square(predicted - labels).ravel())
    return nanmean(partial), nanmean(np.concatenate(errors))


def stack_scores(scores: Sequence[tuple[float, float]]) -> FoldScores:
    """Collect the scores of the folds."""
    partial, mse = np.array(scores, np.float64).reshape(-1, 2).T
    return FoldScores(partial, mse)


class CandidateSearch:
    """Compares the closed-form candidates on the folds of a split.

    Attributes
    ----------
    fold_fitters, final
        Fitters to the training spots of each fold, and to all training spots.
    """

    def __init__(self, inputs: Sequence[SpotInputs], split: HoldOutSplit) -> None:
        self._inputs, self.split = inputs, split
        self.fold_fitters = [ClosedFormFitter(inputs, train) for train, _ in split.folds]
        self.final = ClosedFormFitter(inputs, split.train)

    @classmethod
    def of_network(
        cls,
        network: ExpressionNetwork,
        sections: Sequence[TrainingSection],
        tokens: Sequence[SpotTokens],
        split: HoldOutSplit,
    ) -> CandidateSearch:
        """Compare fits to the predictions of a network; tokens of all spots of each section."""
        pairs = zip(sections, tokens, strict=True)
        return cls([SpotInputs.of_section(network, s, t) for s, t in pairs], split)

    def compare(self) -> list[Candidate]:
        """Return the unchanged checkpoint, levels, correction and ridge, the best of each kind."""
        unchanged = self._score(UNCHANGED, FitOptions())
        moved = [
            self._score(LEVELS, FitOptions(prior, spread))
            for prior in LEVEL_PRIORS
            for spread in (False, True)
        ]
        levels = min(moved, key=lambda c: c.scores.mean_mse)
        start = self.choose_levels([unchanged, levels])
        assert start.options is not None
        corrections = self._with_penalties(CORRECTION, start.options)
        ridges = self._with_penalties(RIDGE, FitOptions(level_prior=0.0, share=0.0))
        return [unchanged, levels, pick_best(corrections), pick_best(ridges)]

    @staticmethod
    def choose_levels(candidates: Sequence[Candidate]) -> Candidate:
        """Return where regressions and training start: new levels where they clearly shifted."""
        unchanged, levels = candidates[:2]
        return levels if is_better(levels, unchanged) else unchanged

    def _with_penalties(self, name: str, options: FitOptions) -> list[Candidate]:
        return [self._score(name, replace(options, penalty=p)) for p in PENALTIES]

    def _score(self, name: str, options: FitOptions) -> Candidate:
        scores = []
        for fitter, (_, validation) in zip(self.fold_fitters, self.split.folds, strict=True):
            predict = partial(self._predict, fitter.fit(options))
            scores.append(score_subset(predict, validation))
        return Candidate(name, stack_scores(scores), options)

    def _predict(self, fit: LinearFit, section: int, rows: SpotRows) -> Float64Array:
        return self._inputs[section].predict(fit, rows)


def is_better(candidate: Candidate, kept: Candidate) -> bool:
    """Return whether a candidate is clearly better than a plainer one."""
    gain, error = _gain(candidate.scores.partial, kept.scores.partial)
    if gain - error > _ROUNDING:
        return True
    reduction = 1 - candidate.scores.mse / kept.scores.mse
    smaller, its_error = _gain(reduction, np.zeros(len(reduction)))
    return gain - error >= -NOTICEABLE_LOSS and smaller - its_error > _ROUNDING


def pick_best(candidates: Sequence[Candidate]) -> Candidate:
    """Pick among candidates in the order from plain to trained."""
    kept, *later = candidates
    for candidate in later:
        if is_better(candidate, kept):
            kept = candidate
    return kept


def choose_candidate(candidates: Sequence[Candidate]) -> CandidateChoice:
    """Apply the rule to candidates from plain to trained, the first of them unchanged."""
    kept = pick_best(candidates)
    return CandidateChoice(kept, _explain(kept, candidates))


def _explain(kept: Candidate, candidates: Sequence[Candidate]) -> str:
    """Say which candidate is kept and why, with the plain ridge beside, from the folds alone."""
    unchanged = candidates[0]
    ridge = next((c for c in candidates if c.name == RIDGE), None)
    beside = ""
    if ridge is not None and kept is not ridge:
        beside = f" (ridge {ridge.scores.mean_partial:.3f} and {ridge.scores.mean_mse:.3f})"
    title, old, new = CANDIDATE_TITLES[kept.name], unchanged.scores, kept.scores
    if kept is unchanged:
        return (
            f"chosen inside the training spots: {title}, as nothing was clearly better than its "
            f"depth-partial PCC of {old.mean_partial:.3f} and squared error of "
            f"{old.mean_mse:.3f}{beside}"
        )
    return (
        f"chosen inside the training spots: {title}, depth-partial PCC "
        f"{old.mean_partial:.3f} -> {new.mean_partial:.3f} and squared error "
        f"{old.mean_mse:.3f} -> {new.mean_mse:.3f}{beside}"
    )


def _gain(values: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[float, float]:
    """Mean difference over the folds and its standard error; (0, 0) where none is defined."""
    differences = values - others
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return 0.0, 0.0
    if len(defined) == 1:
        return float(defined[0]), SINGLE_FOLD_MARGIN
    return float(defined.mean()), float(defined.std(ddof=1) / math.sqrt(len(defined)))


def gain_minus_stderr(gains: NDArray[np.float64]) -> float:
    """Subtract the standard error from the mean gain over folds.

    Parts of a section differ, and the best of many epochs looks good by chance: only a gain in
    most folds justifies a change of the checkpoint.
    """
    gain, error = _gain(gains, np.zeros(len(gains)))
    return gain - error

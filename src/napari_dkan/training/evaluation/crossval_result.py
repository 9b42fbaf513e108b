"""Predictions and costs of all methods in the folds of a cross-validation, and their scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np

from ...model.methods.method_configs import DKAN_METHOD
from ..depth_reference import DepthReference
from ..fit.run_folder import ArraysByName
from ..metrics import FloatingArray
from ..prediction_scores import (
    DEPTH_ALONE,
    PredictionScores,
    score_depth_alone,
    score_predictions,
)
from ..train_settings import FoldUnit
from .folds import Fold

PredictionsBySection = dict[str, FloatingArray]


@dataclass(frozen=True)
class MethodCost:
    """What a method costs in a fold.

    Attributes
    ----------
    fit_seconds
        Wall time of the choice of epochs and the final fit; NaN where part of it was resumed.
    ms_per_spot
        Wall time of predicting the test sections from their tile features, by spot.
    parameters
        Number of parameters and stored labels of all members; NaN for a baseline.
    """

    fit_seconds: float
    ms_per_spot: float
    parameters: float = math.nan


@dataclass(frozen=True)
class FoldResult:
    """Predictions of each method for the test sections of a fold.

    Attributes
    ----------
    epochs
        Number of epochs by trained method and seed.
    labels
        Labels of the test sections.
    predictions
        By method and seed; a baseline has one entry, of the first seed.
    costs
        By method, of the first seed; {} for folds of older versions.
    """

    fold: Fold
    epochs: dict[str, dict[int, int]]
    labels: PredictionsBySection
    predictions: dict[str, dict[int, PredictionsBySection]]
    costs: dict[str, MethodCost] = field(default_factory=dict)

    def to_arrays(self) -> ArraysByName:
        """Convert to a flat table of arrays for a file."""
        flat: ArraysByName = {f"labels|{name}": y for name, y in self.labels.items()}
        for method, by_seed in self.epochs.items():
            suffix = "" if method == DKAN_METHOD else f"|{method}"  # as in older files
            flat |= {f"epochs|{seed}{suffix}": np.array(n) for seed, n in by_seed.items()}
        flat |= {f"costs|{method}": np.array(astuple(c)) for method, c in self.costs.items()}
        for method, predictions in self.predictions.items():
            for seed, sections in predictions.items():
                flat |= {f"{method}|{seed}|{name}": p for name, p in sections.items()}
        return flat

    @classmethod
    def from_arrays(cls, fold: Fold, arrays: ArraysByName) -> FoldResult:
        """Convert from the table of `to_arrays`."""
        result = cls(fold, {}, {}, {})
        for key, values in arrays.items():
            first, *rest = key.split("|", 2)
            if first == "labels":
                result.labels["|".join(rest)] = values
            elif first == "epochs":
                method = rest[1] if len(rest) > 1 else DKAN_METHOD
                result.epochs.setdefault(method, {})[int(rest[0])] = int(values)
            elif first == "costs":
                result.costs[rest[0]] = MethodCost(*map(float, values))
            else:
                by_seed = result.predictions.setdefault(first, {})
                by_seed.setdefault(int(rest[0]), {})[rest[1]] = values
        return result

    def add_methods(self, other: FoldResult) -> FoldResult:
        """Add the methods of another result of the same fold."""
        return replace(
            self,
            epochs=self.epochs | other.epochs,
            predictions=self.predictions | other.predictions,
            costs=self.costs | other.costs,
        )

    def select_methods(self, names: Sequence[str]) -> FoldResult:
        """Keep these trained methods, in this order, and all baselines."""
        kept = [*names, *(m for m in self.predictions if m not in self.epochs)]
        return replace(
            self,
            epochs={m: self.epochs[m] for m in names},
            predictions={m: self.predictions[m] for m in kept},
            costs={m: self.costs[m] for m in kept if m in self.costs},
        )


@dataclass(frozen=True)
class CrossValidationResult:
    """Results of all folds.

    Attributes
    ----------
    references
        Counts behind the labels of each test section, with the mean profile of the training
        sections of its fold; {} where they are unknown.
    """

    by: FoldUnit
    folds: tuple[FoldResult, ...]
    references: Mapping[str, DepthReference] = field(default_factory=dict)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs chosen for the first trained method in each fold, and with each seed."""
        return tuple(n for f in self.folds for n in f.epochs[self.trained_methods[0]].values())

    @property
    def trained_methods(self) -> tuple[str, ...]:
        """Names of the methods that are trained with each seed, without the baselines."""
        return tuple(self.folds[0].epochs)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        methods = tuple(self.folds[0].predictions)
        return (*methods, DEPTH_ALONE) if self.references else methods

    def fold_scores(self, fold: FoldResult, method: str) -> list[PredictionScores]:
        """Score a method on the test sections of a fold, with each seed."""
        if method == DEPTH_ALONE:
            return [score_depth_alone(fold.labels, self.references)]
        return [
            score_predictions(p, {name: fold.labels[name] for name in p}, self.references)
            for p in fold.predictions[method].values()
        ]

    def pooled_scores(self, method: str, seed: int | None = None) -> PredictionScores:
        """Score a method over the test sections of all folds; by default for the first seed."""
        predicted: PredictionsBySection = {}
        labels: PredictionsBySection = {}
        for result in self.folds:
            labels |= result.labels
        if method == DEPTH_ALONE:
            return score_depth_alone(labels, self.references)
        for result in self.folds:
            by_seed = result.predictions[method]
            predicted |= by_seed[next(iter(by_seed)) if seed is None else seed]
        return score_predictions(
            predicted, {name: labels[name] for name in predicted}, self.references
        )

    @property
    def scores(self) -> dict[str, PredictionScores]:
        """Pooled scores by method."""
        return {method: self.pooled_scores(method) for method in self.methods}

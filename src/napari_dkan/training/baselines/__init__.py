"""Baseline methods, fitted on the same split and in the same run as a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..data.prepared_section import EncodedSection
from .linear_baselines import FeatureRidge, PcaRidge, PredictFunction, StainRidge, TrainingMean
from .neural_stain_learning import NeuralStainLearning


class Baseline(Protocol):
    """Method that is fitted on training sections alone."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        """Fit it and return a function that predicts another section."""
        ...


BASELINES: dict[str, Baseline] = {
    "training_mean": TrainingMean(),
    "ridge": FeatureRidge(),
    "ridge_stain": StainRidge(),
    "nsl": NeuralStainLearning(),
    "pca_ridge": PcaRidge(),
}

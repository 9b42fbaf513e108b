"""Plain methods that a network has to beat, on the same split and in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.prepared_section import EncodedSection
from .linear_baselines import FeatureRidge, PcaRidge, StainRidge, TrainingMean
from .neural_stain_learning import NeuralStainLearning

# A section it has not seen -> (N, G) on the scale of the labels.
PredictFunction = Callable[[EncodedSection], NDArray[np.float64]]


class Baseline(Protocol):
    """A method that is fitted on training sections alone."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction: ...


BASELINES: dict[str, Baseline] = {
    "training_mean": TrainingMean(),
    "ridge": FeatureRidge(),
    "ridge_stain": StainRidge(),
    "nsl": NeuralStainLearning(),
    "pca_ridge": PcaRidge(),
}

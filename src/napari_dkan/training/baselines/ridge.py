"""Ridge on the encoder's features: own tile, mean of 3x3, mean of 5x5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ridge import Float64Array, fit_ridge_cv, compute_multi_scale_features
from ..sections import EncodedSection


@dataclass(frozen=True)
class FeatureRidge:
    """The features are those the network sees; the penalty is chosen within the training."""

    def fit(self, sections: Sequence[EncodedSection]) -> Callable[[EncodedSection], NDArray[np.float64]]:
        ridge = fit_ridge_cv(
            [_multi_scale_features(s) for s in sections], [s.section.labels.numpy() for s in sections]
        )
        return lambda section: ridge.predict(_multi_scale_features(section))


def _multi_scale_features(section: EncodedSection) -> Float64Array:
    return compute_multi_scale_features(section.neighbor_features.numpy(), section.section.mask.numpy())

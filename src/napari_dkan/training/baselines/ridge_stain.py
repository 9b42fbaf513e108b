"""Ridge on plain stain and texture statistics at three scales, without any encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ridge import Float64Array, fit_ridge_cv, compute_multi_scale_features
from ..sections import EncodedSection

_MIN_STD = 1e-4  # a statistic that varies less says nothing and must not be blown up


@dataclass(frozen=True)
class StainRidge:
    """3 x 104 statistics, each standardised over the training spots; the penalty as in ridge."""

    def fit(self, sections: Sequence[EncodedSection]) -> Callable[[EncodedSection], NDArray[np.float64]]:
        raw = [_multi_scale_statistics(s) for s in sections]
        together = np.concatenate(raw)
        mean, std = together.mean(axis=0), together.std(axis=0)
        std = np.where(std < _MIN_STD, 1.0, std)
        ridge = fit_ridge_cv(
            [(x - mean) / std for x in raw], [s.section.labels.numpy() for s in sections]
        )
        return lambda section: ridge.predict((_multi_scale_statistics(section) - mean) / std)


def _multi_scale_statistics(section: EncodedSection) -> Float64Array:
    return compute_multi_scale_features(section.section.statistics.numpy(), section.section.mask.numpy())

"""Ridge on the encoder's features: own tile, mean of 3x3, mean of 5x5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ridge import Array, choose_ridge, multi_scale
from ..sections import Encoded


@dataclass(frozen=True)
class FeatureRidge:
    """The features are those the network sees; the penalty is chosen within the training."""

    def fit(self, sections: Sequence[Encoded]) -> Callable[[Encoded], NDArray[np.float64]]:
        ridge = choose_ridge(
            [_inputs(s) for s in sections], [s.section.labels.numpy() for s in sections]
        )
        return lambda section: ridge.predict(_inputs(section))


def _inputs(section: Encoded) -> Array:
    return multi_scale(section.features.numpy(), section.section.mask.numpy())

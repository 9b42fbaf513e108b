"""A fitted ridge regression on tile features: what the network has to beat, and what a checkpoint
carries of it, so that it can be shown beside the network where there is no training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SCALES = 3  # own tile, mean of 3x3, mean of 5x5
CHUNK = 1024  # spots whose neighbourhoods are averaged at once


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge regression on centred inputs of common scale.

    mean (F,), weights (F, G), offset (G,).
    """

    mean: Array
    scale: float
    weights: Array
    offset: Array
    penalty: float

    def predict(self, x: Array) -> Array:
        """(N, F) -> (N, G) on the scale of the labels."""
        return (x - self.mean) / self.scale @ self.weights + self.offset

    def around(self, features: NDArray[np.floating], mask: NDArray[np.bool_]) -> Array:
        """`predict` of the `multi_scale` of (N, 25, d) and (N, 25)."""
        parts = [
            self.predict(multi_scale(features[i : i + CHUNK], mask[i : i + CHUNK]))
            for i in range(0, len(features), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.offset)))


def multi_scale(features: NDArray[np.floating], mask: NDArray[np.bool_]) -> Array:
    """Own tile, mean of 3x3, mean of 5x5: (N, 25, d) and (N, 25) -> (N, 3 d).

    Tiles that leave the slide are left out of the means.
    """
    features = np.asarray(features, dtype=np.float64)
    near = np.zeros((5, 5), dtype=bool)
    near[1:4, 1:4] = True
    scales = [features[:, 12]]
    for ring in (near.ravel(), np.ones(25, dtype=bool)):
        weight = (mask & ring).astype(np.float64)
        weight /= weight.sum(axis=1, keepdims=True)
        scales.append(np.einsum("nk,nkd->nd", weight, features))
    return np.concatenate(scales, axis=1)

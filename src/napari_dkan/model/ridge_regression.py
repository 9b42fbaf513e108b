"""Ridge regression on tile features: the baseline of the network, stored in the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
NUM_SCALES = 3  # own tile, mean of 3x3, mean of 5x5
CHUNK_SPOTS = 1024  # spots whose neighbourhoods are averaged at once


@dataclass(frozen=True, eq=False)
class RidgeRegression:
    """A fitted ridge regression on centred inputs of common scale.

    mean (F,), weights (F, G), offset (G,).
    """

    mean: Float64Array
    scale: float
    weights: Float64Array
    offset: Float64Array
    penalty: float

    def predict(self, x: Float64Array) -> Float64Array:
        """(N, F) -> (N, G) on the scale of the labels."""
        return (x - self.mean) / self.scale @ self.weights + self.offset

    def predict_neighborhoods(
        self, features: NDArray[np.floating], mask: NDArray[np.bool_]
    ) -> Float64Array:
        """`predict` of the `multi_scale` of (N, 25, d) and (N, 25)."""
        parts = [
            self.predict(
                compute_multi_scale_features(
                    features[i : i + CHUNK_SPOTS], mask[i : i + CHUNK_SPOTS]
                )
            )
            for i in range(0, len(features), CHUNK_SPOTS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.offset)))


def compute_multi_scale_features(
    features: NDArray[np.floating], mask: NDArray[np.bool_]
) -> Float64Array:
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

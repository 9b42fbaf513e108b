"""Ridge regression on tile features: the baseline of the network, stored in the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
NUM_SCALES = 3  # the spot's own tile, mean of 3x3, mean of 5x5
CHUNK_SPOTS = 1024  # neighbourhoods that are averaged at a time


@dataclass(frozen=True, eq=False)
class RidgeRegression:
    """A fitted ridge regression on centred inputs with a common scale.

    Attributes
    ----------
    mean
        Of the inputs, (F,).
    scale
        By which all centred inputs are divided.
    weights
        (F, G).
    offset
        (G,).
    penalty
        Of the fit.
    """

    mean: Float64Array
    scale: float
    weights: Float64Array
    offset: Float64Array
    penalty: float

    def predict(self, x: Float64Array) -> Float64Array:
        """Predict (N, F) -> (N, G) on the scale of the labels."""
        return (x - self.mean) / self.scale @ self.weights + self.offset

    def predict_neighborhoods(
        self, features: NDArray[np.floating], mask: NDArray[np.bool_]
    ) -> Float64Array:
        """Predict from tile features (N, 25, d) with mask (N, 25) -> (N, G)."""
        parts = [np.empty((0, len(self.offset)))]
        for start in range(0, len(features), CHUNK_SPOTS):
            chunk = slice(start, start + CHUNK_SPOTS)
            parts.append(self.predict(compute_multi_scale_features(features[chunk], mask[chunk])))
        return np.concatenate(parts)


def compute_multi_scale_features(
    features: NDArray[np.floating], mask: NDArray[np.bool_]
) -> Float64Array:
    """Concatenate the own tile, the mean of 3x3 and the mean of 5x5.

    Parameters
    ----------
    features
        Of a 5x5 grid of tiles, (N, 25, d).
    mask
        (N, 25), false for tiles that leave the slide; they do not count in the means.

    Returns
    -------
    array
        (N, 3 d).
    """
    features = np.asarray(features, dtype=np.float64)
    inner = np.zeros((5, 5), dtype=bool)
    inner[1:4, 1:4] = True
    scales = [features[:, 12]]
    for window in (inner.ravel(), np.ones(25, dtype=bool)):
        weight = (mask & window).astype(np.float64)
        weight /= weight.sum(axis=1, keepdims=True)
        scales.append(np.einsum("nk,nkd->nd", weight, features))
    return np.concatenate(scales, axis=1)

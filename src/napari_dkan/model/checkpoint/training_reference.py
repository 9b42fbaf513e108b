"""Statistics of a network's training data, from which the reliability of predictions is scored.

The statistics are stored in the checkpoint, so that a viewer needs no training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from ..ridge_regression import NUM_SCALES, RidgeRegression

QUANTILE_LEVELS = np.linspace(0.0, 1.0, 101)
MAX_AXES = 32  # along which tokens are compared
DISTANCE_FEATURE = "distance"  # name of the distance, after those of the tile features

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingReference:
    """Statistics of the spots on which a checkpoint was trained.

    Attributes
    ----------
    n_spots
        Number of spots.
    feature_names
        Of the E features of `inference.tile_qc_features`, the distance last.
    feature_quantiles
        Quantiles of each feature over all spots, (E, 101).
    slide_names
        Of the S slides.
    slide_means
        Means of the features over the spots of each slide, (S, E).
    slide_mpp
        Micrometres per pixel of each slide.
    token_mean, token_axes
        Whitening of fused tokens, (D,) and (D, K): centred tokens times the axes have unit
        variance.
    ridge
        Ridge regression on the checkpoint's tile features, None if the grid of neighbours is not 5
        x 5.
    tissue
        Organ and species in words, "" if unknown.
    """

    n_spots: int
    feature_names: tuple[str, ...]
    feature_quantiles: Float32Array
    slide_names: tuple[str, ...]
    slide_means: Float32Array
    slide_mpp: tuple[float, ...]
    token_mean: Float32Array
    token_axes: Float32Array
    ridge: RidgeRegression | None = None
    tissue: str = ""

    def validate_dimensions(self, width: int, dim: int, genes: int) -> None:
        """Raise CheckpointError unless the statistics fit a network.

        Parameters
        ----------
        width
            Of a fused token.
        dim
            Number of features of a tile.
        genes
            Size of the panel.
        """
        ridge = self.ridge
        if self.token_axes.shape[0] != width or len(self.token_mean) != width:
            raise CheckpointError(
                f"The reference is of fused tokens of {self.token_axes.shape[0]} numbers; the "
                f"network's have {width}."
            )
        if ridge is not None and ridge.weights.shape != (NUM_SCALES * dim, genes):
            raise CheckpointError(
                f"The reference's ridge regression is of shape {ridge.weights.shape}; the network "
                f"needs {(NUM_SCALES * dim, genes)}."
            )

    def compute_distance(self, tokens: NDArray[np.floating]) -> Float32Array:
        """Compute the distance of fused tokens (N, D) to those of the training spots, (N,).

        In standard deviations, root mean square over the axes: about 1 for a training spot.
        """
        return compute_whitened_distance(tokens, self.token_mean, self.token_axes)

    def compute_quantile_rank(self, name: str, values: NDArray[np.floating]) -> Float32Array:
        """Return the fraction of training spots with a lower value of a feature, (N,)."""
        quantiles = self.feature_quantiles[self.feature_names.index(name)]
        rank: Float32Array = np.interp(values, quantiles, QUANTILE_LEVELS).astype(np.float32)
        return rank


def fit_whitening(
    tokens: NDArray[np.floating], max_axes: int = MAX_AXES
) -> tuple[Float32Array, Float32Array]:
    """Fit mean (D,) and whitening axes (D, K) of tokens (N, D), with K at most a fifth of N."""
    mean = tokens.mean(axis=0, dtype=np.float64)
    _, singular_values, right = np.linalg.svd(tokens - mean, full_matrices=False)
    rank = int((singular_values > 1e-6 * max(singular_values[0], 1e-12)).sum())
    count = max(1, min(max_axes, len(tokens) // 5, rank))
    deviation = np.maximum(singular_values[:count] / np.sqrt(max(1, len(tokens) - 1)), 1e-6)
    return mean.astype(np.float32), (right[:count].T / deviation).astype(np.float32)


def compute_whitened_distance(
    tokens: NDArray[np.floating], mean: Float32Array, axes: Float32Array
) -> Float32Array:
    """Compute the distance of tokens (N, D) to a mean, see `TrainingReference.compute_distance`.

    What follows the networks' tokens, of a linear path, does not count.
    """
    whitened = (np.asarray(tokens, np.float32)[:, : len(mean)] - mean) @ axes
    distance: Float32Array = np.sqrt(np.square(whitened).mean(axis=1))
    return distance


def compute_quantiles(values: Sequence[NDArray[np.floating]]) -> Float32Array:
    """Compute the quantiles (E, 101) of E features."""
    return np.stack([np.quantile(v, QUANTILE_LEVELS) for v in values]).astype(np.float32)

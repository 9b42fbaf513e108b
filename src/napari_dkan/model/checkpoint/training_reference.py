"""Statistics of a network's training data, against which unmeasured predictions are judged.

The statistics are stored in the checkpoint, so that a viewer needs no training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from ..ridge_regression import NUM_SCALES, RidgeRegression

QUANTILE_LEVELS = np.linspace(0.0, 1.0, 101)
MAX_AXES = 32  # most axes along which tokens are compared
DISTANCE_FEATURE = "distance"  # beside what is noted per tile

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingReference:
    """The spots a checkpoint was trained on, as they look to `inference.evidence`.

    names : what was noted of every spot, E of it, the distance last.
    levels : (E, 101) its quantiles over all spots.
    slides : S of them by name. by_slide : (S, E) means over their spots. mpp : (S,) um per px.
    token_mean (D,), token_axes (D, K) : fused tokens, centred and times the axes, have unit
        variance along each.
    ridge : a plain regression on the checkpoint's own tile features, None where the grid of
        neighbours is not 5 x 5.
    tissue : organ and species in words, "" when unknown.
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
    tissue: str = field(default="")

    def validate_dimensions(self, width: int, dim: int, genes: int) -> None:
        """Raises CheckpointError unless fused tokens are that wide, a tile has so many features
        and the panel so many genes."""
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
        """How far fused tokens (N, D) lie from those of the training spots, (N,).

        In standard deviations, root mean square over the axes: about 1 for a training spot.
        """
        return compute_whitened_distance(tokens, self.token_mean, self.token_axes)

    def compute_quantile_rank(self, name: str, values: NDArray[np.floating]) -> Float32Array:
        """The share of training spots, (N,), that have less of something than these (N,)."""
        levels = self.feature_quantiles[self.feature_names.index(name)]
        return np.interp(values, levels, QUANTILE_LEVELS).astype(np.float32)


def fit_whitening(
    tokens: NDArray[np.floating], max_axes: int = MAX_AXES
) -> tuple[Float32Array, Float32Array]:
    """Mean (D,) and axes (D, K) of tokens (N, D); K is kept below a fifth of N."""
    mean = tokens.mean(axis=0, dtype=np.float64)
    _, spread, right = np.linalg.svd(tokens - mean, full_matrices=False)
    count = max(
        1, min(max_axes, len(tokens) // 5, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()))
    )
    deviation = np.maximum(spread[:count] / np.sqrt(max(1, len(tokens) - 1)), 1e-6)
    return mean.astype(np.float32), (right[:count].T / deviation).astype(np.float32)


def compute_whitened_distance(
    tokens: NDArray[np.floating], mean: Float32Array, axes: Float32Array
) -> Float32Array:
    """See `Reference.distance`."""
    placed = (np.asarray(tokens, np.float32) - mean) @ axes
    return np.sqrt(np.square(placed).mean(axis=1))


def compute_quantiles(values: Sequence[NDArray[np.floating]]) -> Float32Array:
    """(E, 101) quantiles of E kinds of values."""
    return np.stack([np.quantile(v, QUANTILE_LEVELS) for v in values]).astype(np.float32)

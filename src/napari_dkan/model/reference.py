"""What a network's training data looked like: what a prediction is judged by without measurements.

It travels in the checkpoint, so that a viewer needs no training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .ridge import SCALES, Ridge

QUANTILES = np.linspace(0.0, 1.0, 101)
AXES = 32  # most axes along which tokens are compared
DISTANCE = "distance"  # beside what is noted per tile

Numbers = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
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

    spots: int
    names: tuple[str, ...]
    levels: Numbers
    slides: tuple[str, ...]
    by_slide: Numbers
    mpp: tuple[float, ...]
    token_mean: Numbers
    token_axes: Numbers
    ridge: Ridge | None = None
    tissue: str = field(default="")

    def require_fit(self, width: int, dim: int, genes: int) -> None:
        """Raises CheckpointError unless fused tokens are that wide, a tile has so many features
        and the panel so many genes."""
        ridge = self.ridge
        if self.token_axes.shape[0] != width or len(self.token_mean) != width:
            raise CheckpointError(
                f"The reference is of fused tokens of {self.token_axes.shape[0]} numbers; the "
                f"network's have {width}."
            )
        if ridge is not None and ridge.weights.shape != (SCALES * dim, genes):
            raise CheckpointError(
                f"The reference's ridge regression is of shape {ridge.weights.shape}; the network "
                f"needs {(SCALES * dim, genes)}."
            )

    def distance(self, tokens: NDArray[np.floating]) -> Numbers:
        """How far fused tokens (N, D) lie from those of the training spots, (N,).

        In standard deviations, root mean square over the axes: about 1 for a training spot.
        """
        return distance(tokens, self.token_mean, self.token_axes)

    def place(self, name: str, values: NDArray[np.floating]) -> Numbers:
        """The share of training spots, (N,), that have less of something than these (N,)."""
        levels = self.levels[self.names.index(name)]
        return np.interp(values, levels, QUANTILES).astype(np.float32)


def whitening(tokens: NDArray[np.floating], most: int = AXES) -> tuple[Numbers, Numbers]:
    """Mean (D,) and axes (D, K) of tokens (N, D); K is kept below a fifth of N."""
    mean = tokens.mean(axis=0, dtype=np.float64)
    _, spread, right = np.linalg.svd(tokens - mean, full_matrices=False)
    count = max(1, min(most, len(tokens) // 5, int((spread > 1e-6 * max(spread[0], 1e-12)).sum())))
    deviation = np.maximum(spread[:count] / np.sqrt(max(1, len(tokens) - 1)), 1e-6)
    return mean.astype(np.float32), (right[:count].T / deviation).astype(np.float32)


def distance(tokens: NDArray[np.floating], mean: Numbers, axes: Numbers) -> Numbers:
    """See `Reference.distance`."""
    placed = (np.asarray(tokens, np.float32) - mean) @ axes
    return np.sqrt(np.square(placed).mean(axis=1))


def levels_of(values: Sequence[NDArray[np.floating]]) -> Numbers:
    """(E, 101) quantiles of E kinds of values."""
    return np.stack([np.quantile(v, QUANTILES) for v in values]).astype(np.float32)

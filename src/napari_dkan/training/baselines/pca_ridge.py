"""PCA and ridge on the spot's own tile, as the HEST benchmark probes encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..sections import EncodedSection

FloatMatrix = NDArray[np.float64]


@dataclass(frozen=True)
class PcaRidge:
    """Features standardised, reduced to 256 principal components, ridge of fixed penalty.

    As published with HEST-1k (Jaume et al., NeurIPS 2024, repository mahmoodlab/HEST,
    ``hest/bench``): StandardScaler, PCA(256), ridge with alpha = 100 / (components x genes) on the
    uncentred labels without an offset. The components are centred, so an offset changes no
    weight; it is added here, because without it every prediction would be around zero and its
    errors would mean nothing. Fewer features or spots than 256 give as many components as there
    are.
    """

    components: int = 256

    def fit(self, sections: Sequence[EncodedSection]) -> Callable[[EncodedSection], FloatMatrix]:
        x = np.concatenate([_target_features(s) for s in sections])
        y = np.concatenate([s.section.labels.numpy() for s in sections]).astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0)
        std = np.where(std == 0, 1.0, std)
        left, spread, axes = np.linalg.svd((x - mean) / std, full_matrices=False)
        kept = min(self.components, int((spread > 1e-10 * spread[0]).sum())) if len(spread) else 0
        left, spread, axes = left[:, :kept], spread[:kept], axes[:kept]
        alpha = 100.0 / (max(kept, 1) * y.shape[1])
        offset = y.mean(axis=0)
        # on principal components the ridge solution is diagonal
        weights = (spread / (spread**2 + alpha))[:, None] * (left.T @ (y - offset))
        return lambda section: (_target_features(section) - mean) / std @ axes.T @ weights + offset


def _target_features(section: EncodedSection) -> FloatMatrix:
    return section.target_features.numpy().astype(np.float64)

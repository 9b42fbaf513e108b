"""Spatial jitter and stain augmentation of training sections.

A few hundred spots with one stain let a network overfit to that stain. Each view reads every spot
again from the slide, at a slightly shifted position and with changed stain amounts and colours. The
change is the same for the whole slide, as between laboratories. Labels are means over 3x3 spots and
stay valid after the shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...model.stain_normalization import RUIFROK_STAIN_VECTORS
from ..train_settings import Augmentation

_OPTICAL_DENSITY = -np.log((np.arange(256) + 1) / 256)


@dataclass(frozen=True)
class AugmentedView:
    """Pixels around the N spots of a section in one view, as in `PreparedSection`.

    Attributes
    ----------
    patches
        (N, 3, P, P) uint8.
    statistics
        (N, 25, 104) float32.
    mask
        (N, 25) bool.
    tile_features
        (N, 25, d) of a frozen encoder, None where the stain encoder is fitted.
    """

    patches: Tensor
    statistics: Tensor
    mask: Tensor
    tile_features: Tensor | None = None


@dataclass(frozen=True)
class StainTransform:
    """Change of stain: optical densities times a matrix (3, 3) plus an offset (3,)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def sample(cls, augmentation: Augmentation, rng: np.random.Generator) -> StainTransform:
        """Draw another amount of each stain, and another colour of haematoxylin and eosin."""
        amounts = np.exp(augmentation.amount * rng.standard_normal(3))
        change = augmentation.colour * rng.standard_normal((3, 3)) * [[1.0], [1.0], [0.0]]
        stains = _normalize_rows(np.array(RUIFROK_STAIN_VECTORS))
        changed_stains = _normalize_rows(stains + change)
        matrix = np.linalg.inv(stains) @ np.diag(amounts) @ changed_stains
        return cls(matrix, augmentation.background * np.abs(rng.standard_normal(3)))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Transform RGB pixels (..., 3)."""
        density = _OPTICAL_DENSITY[pixels] @ self.matrix + self.offset
        transformed: NDArray[np.float64] = np.clip(256 * np.exp(-density) - 1, 0, 255)
        return transformed.astype(np.uint8)


def sample_view_transforms(
    augmentation: Augmentation, seed: int
) -> list[tuple[StainTransform | None, np.random.Generator]]:
    """Draw for each view its stain transform (None for no change) and a generator of its jitter."""
    rng = np.random.default_rng(seed)
    return [
        (
            None if i % 3 == 0 else StainTransform.sample(augmentation, rng),
            np.random.default_rng([seed, i]),
        )
        for i in range(augmentation.views)
    ]


def sample_jitter(
    augmentation: Augmentation, n_spots: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw (N, 2) offsets in um."""
    return rng.uniform(-augmentation.jitter_um, augmentation.jitter_um, (n_spots, 2))


def _normalize_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    normalized: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalized

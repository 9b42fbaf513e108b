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

# Optical density of haematoxylin, eosin and the rest (Ruifrok and Johnston 2001).
_STAIN_VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_OPTICAL_DENSITY = -np.log((np.arange(256) + 1) / 256)


@dataclass(frozen=True)
class Augmentation:
    """How many views, and how far they go.

    views : read of each section beside the plain one; every third keeps the stain.
    jitter_um : a spot is moved by at most this much along each axis.
    amount : standard deviation of the logarithm of each stain's amount.
    colour : standard deviation of the change of the stains' optical densities.
    background : standard deviation of what the glass absorbs.
    """

    views: int = 12
    jitter_um: float = 46.0
    amount: float = 0.2
    colour: float = 0.06
    background: float = 0.03


@dataclass(frozen=True)
class AugmentedView:
    """Pixels of a section's N spots seen in another way; as in `Section`.

    patches : (N, 3, P, P) uint8. statistics : (N, 25, 104). mask : (N, 25) bool.
    """

    patches: Tensor
    statistics: Tensor
    mask: Tensor


@dataclass(frozen=True)
class StainTransform:
    """A change of stain: optical densities times a matrix (3, 3) plus an offset (3,)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def sample(cls, augmentation: Augmentation, rng: np.random.Generator) -> StainTransform:
        """Each stain gets another amount and, but for the rest, another colour."""
        amounts = np.exp(augmentation.amount * rng.standard_normal(3))
        change = augmentation.colour * rng.standard_normal((3, 3)) * [[1.0], [1.0], [0.0]]
        stains = _normalize_rows(_STAIN_VECTORS)
        others = _normalize_rows(stains + change)
        matrix = np.linalg.inv(stains) @ np.diag(amounts) @ others
        return cls(matrix, augmentation.background * np.abs(rng.standard_normal(3)))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (..., 3) -> RGB (..., 3)."""
        density = _OPTICAL_DENSITY[pixels] @ self.matrix + self.offset
        return np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def sample_view_transforms(
    augmentation: Augmentation, seed: int
) -> list[tuple[StainTransform | None, np.random.Generator]]:
    """The change of stain of each view, None where it keeps it, and where its jitter comes from."""
    random = np.random.default_rng(seed)
    return [
        (
            None if i % 3 == 0 else StainTransform.sample(augmentation, random),
            np.random.default_rng([seed, i]),
        )
        for i in range(augmentation.views)
    ]


def sample_jitter(
    augmentation: Augmentation, n_spots: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(N, 2) offsets in um."""
    return rng.uniform(-augmentation.jitter_um, augmentation.jitter_um, (n_spots, 2))


def _normalize_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

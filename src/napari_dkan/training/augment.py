"""Other looks at a section: spots a little beside their place, in the stain of another laboratory.

A few hundred spots of one stain teach a network that stain. Each view reads every spot anew from
the slide, moved a little (labels are means over 3x3 spots, so they hold there too) and with the
amounts and colours of the stains changed, the same change for the whole slide, as between
laboratories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Optical density of haematoxylin, eosin and the rest (Ruifrok and Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_DENSITY = -np.log((np.arange(256) + 1) / 256)


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
class View:
    """Pixels of a section's N spots seen in another way; as in `Section`.

    patches : (N, 3, P, P) uint8. statistics : (N, 25, 104). mask : (N, 25) bool.
    """

    patches: Tensor
    statistics: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Restain:
    """A change of stain: optical densities times a matrix (3, 3) plus an offset (3,)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def draw(cls, by: Augmentation, random: np.random.Generator) -> Restain:
        """Each stain gets another amount and, but for the rest, another colour."""
        amounts = np.exp(by.amount * random.standard_normal(3))
        change = by.colour * random.standard_normal((3, 3)) * [[1.0], [1.0], [0.0]]
        stains = _unit(_STAINS)
        others = _unit(stains + change)
        matrix = np.linalg.inv(stains) @ np.diag(amounts) @ others
        return cls(matrix, by.background * np.abs(random.standard_normal(3)))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB (..., 3) -> RGB (..., 3)."""
        density = _DENSITY[pixels] @ self.matrix + self.offset
        return np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def plan(by: Augmentation, seed: int) -> list[tuple[Restain | None, np.random.Generator]]:
    """The change of stain of each view, None where it keeps it, and where its jitter comes from."""
    random = np.random.default_rng(seed)
    return [
        (None if i % 3 == 0 else Restain.draw(by, random), np.random.default_rng([seed, i]))
        for i in range(by.views)
    ]


def jitter(by: Augmentation, spots: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(N, 2) offsets in um."""
    return random.uniform(-by.jitter_um, by.jitter_um, (spots, 2))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

"""Two or three genes in one picture: a colour each, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MixColor:
    """Name and RGB, from 0 to 1, of the highest values of one gene."""

    name: str
    rgb: tuple[float, float, float]


# The colours of each number of genes add up to white, so that a mixture says what is in it.
# Three colours near those of Okabe and Ito; no three are told apart by all eyes in all mixtures.
MIX_COLORS: dict[int, tuple[MixColor, ...]] = {
    2: (MixColor("magenta", (1.0, 0.0, 1.0)), MixColor("green", (0.0, 1.0, 0.0))),
    3: (
        MixColor("red", (0.95, 0.25, 0.05)),
        MixColor("green", (0.05, 0.60, 0.25)),
        MixColor("blue", (0.00, 0.15, 0.70)),
    ),
}
MAX_MIXED_GENES = max(MIX_COLORS)


def mix_genes(
    values: NDArray[np.floating], limits: Sequence[tuple[float, float]]
) -> NDArray[np.uint8]:
    """Colour tiles by two or three genes.

    Parameters
    ----------
    values : (N, K) array
        Values of two or three genes.
    limits : sequence of K pairs
        Of each gene; the lower one is black, the upper one its full colour.

    Returns
    -------
    (N, 4) uint8 array
        RGBA; transparent where one of the genes has no value.
    """
    low, high = np.asarray(limits, np.float64).T
    share = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1)
    colors = np.array([color.rgb for color in MIX_COLORS[values.shape[1]]])
    known = np.isfinite(share).all(axis=1)
    rgba = np.zeros((len(values), 4), np.uint8)
    rgba[known, :3] = np.round(255 * np.clip(share[known] @ colors, 0, 1))
    rgba[known, 3] = 255
    return rgba

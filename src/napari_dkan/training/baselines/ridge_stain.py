"""Ridge on plain stain and texture statistics at three scales, without any encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ridge import Array, choose_ridge, multi_scale
from ..sections import Encoded

_FLAT = 1e-4  # a statistic that varies less says nothing and must not be blown up


@dataclass(frozen=True)
class StainRidge:
    """3 x 104 statistics, each standardised over the training spots; the penalty as in ridge."""

    def fit(self, sections: Sequence[Encoded]) -> Callable[[Encoded], NDArray[np.float64]]:
        raw = [_inputs(s) for s in sections]
        together = np.concatenate(raw)
        mean, std = together.mean(axis=0), together.std(axis=0)
        std = np.where(std < _FLAT, 1.0, std)
        ridge = choose_ridge(
            [(x - mean) / std for x in raw], [s.section.labels.numpy() for s in sections]
        )
        return lambda section: ridge.predict((_inputs(section) - mean) / std)


def _inputs(section: Encoded) -> Array:
    return multi_scale(section.section.statistics.numpy(), section.section.mask.numpy())

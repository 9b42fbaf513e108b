"""The interface that a file format implements to be opened as a Slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..pixel_size import PixelSizeMetadata


class SourceError(Exception):
    """Why a file is no usable slide, as the end of a sentence that names it."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide: its size in its own px, and level-0 px per px of it."""

    width: int
    height: int
    downsample: float


class SlideSource(Protocol):
    """Pixels of one file, read on demand.

    `read` is called from several threads at once, only with regions inside the level, and
    returns (height, width, 3) uint8. It may raise whatever its libraries raise: Slide is the
    one place that turns this into a SlideError.
    `chunk` is the (width, height) that is decoded together at level 0.
    `icc` is the profile that the file brings for its colours, None where it brings none.
    """

    levels: tuple[Level, ...]
    pixel_size_metadata: PixelSizeMetadata
    chunk_size: tuple[int, int]
    icc_profile: bytes | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]: ...

    def prefetch(self) -> None: ...

    def close(self) -> None: ...


def levels_from_sizes(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their (width, height), finest first.

    Writers round the sides of lower levels, so width0 / width is only nearly the factor they
    reduced by; where a whole factor explains both sides it is taken, and positions stay exact.
    """
    width0, height0 = sizes[0]
    levels = []
    for width, height in sizes:
        factor = round(width0 / width)
        if abs(width0 / factor - width) < 1 and abs(height0 / factor - height) < 1:
            levels.append(Level(width, height, float(factor)))
        else:
            levels.append(Level(width, height, (width0 / width + height0 / height) / 2))
    return tuple(levels)

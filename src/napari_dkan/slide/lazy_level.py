"""Array view of a level of a slide, which reads only the pixels that are indexed."""

from __future__ import annotations

import operator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .sources.slide_source import Level


class RegionReader(Protocol):
    """A slide: its name, its levels, and regions of them; see `Slide`."""

    name: str
    levels: tuple[Level, ...]

    def read_region(
        self, x: int, y: int, width: int, height: int, level: int = 0
    ) -> NDArray[np.uint8]: ...


class LazyLevel:
    """Read-only (H, W, 3) uint8 view of a level, which reads only the pixels that are indexed.

    Accepts integers, slices (with steps) and ``...``; raises IndexError for anything else.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: RegionReader, level: int) -> None:
        self.slide = slide
        self._level = level
        size = slide.levels[level]
        self.shape = (size.height, size.width, 3)
        self.size = size.height * size.width * 3
        self.nbytes = self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            position = keys.index(Ellipsis)
            keys[position : position + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        if len(keys) > self.ndim:
            raise IndexError(f"a level has 3 axes, not {len(keys)}")
        keys += [slice(None)] * (self.ndim - len(keys))
        (y, height, rest_y), (x, width, rest_x) = (
            _resolve_index(k, n) for k, n in zip(keys[:2], self.shape[:2], strict=True)
        )
        pixels = self.slide.read_region(x, y, width, height, self._level)
        selected: NDArray[np.uint8] = pixels[rest_y, rest_x, keys[2]]
        return selected

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[:]
        return pixels if dtype is None else pixels.astype(dtype)

    def __repr__(self) -> str:
        return f"<level {self._level} of {self.slide.name}: {self.shape} uint8>"


def _resolve_index(key: Any, length: int) -> tuple[int, int, Any]:
    """Return the first px, the number of px to read, and the index into the pixels read."""
    if isinstance(key, slice):
        indices = range(length)[key]
        if not indices:
            return 0, 0, slice(None)
        low, high = min(indices[0], indices[-1]), max(indices[0], indices[-1])
        return low, high - low + 1, slice(None, None, indices.step)
    try:
        index = operator.index(key)
    except TypeError:
        raise IndexError(f"a level is indexed with integers and slices, not {key!r}") from None
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside a level of {length} px")
    return index % length, 1, 0

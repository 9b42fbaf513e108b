"""One level of a slide that looks like an array."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .slide import Slide


class LazyLevel:
    """Read-only (H, W, 3) uint8 view of a level; indexing reads only what it needs.

    Takes integers, slices (with steps) and `...`; IndexError for anything else.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
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
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        if len(keys) > self.ndim:
            raise IndexError(f"a level has 3 axes, not {len(keys)}")
        keys += [slice(None)] * (self.ndim - len(keys))
        (y, height, rest_y), (x, width, rest_x) = (
            _resolve_index(k, n) for k, n in zip(keys[:2], self.shape[:2], strict=True)
        )
        pixels = self.slide.read_region(x, y, width, height, self._level)
        return pixels[rest_y, rest_x, keys[2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[:]
        return pixels if dtype is None else pixels.astype(dtype)

    def __repr__(self) -> str:
        return f"<level {self._level} of {self.slide.name}: {self.shape} uint8>"


def _resolve_index(key: Any, length: int) -> tuple[int, int, Any]:
    """First px, number of px to read, and the index to take from what was read."""
    if isinstance(key, slice):
        wanted = range(length)[key]
        if not wanted:
            return 0, 0, slice(None)
        low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        return low, high - low + 1, slice(None, None, wanted.step)
    try:
        index = operator.index(key)
    except TypeError:
        raise IndexError(f"a level is indexed with integers and slices, not {key!r}") from None
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside a level of {length} px")
    return index % length, 1, 0

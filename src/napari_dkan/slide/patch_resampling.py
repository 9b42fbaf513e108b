"""Resample a square of pixels to a patch of another size, without seams."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Positions this close to a whole pixel are whole: conversion from um leaves rounding errors.
WHOLE_PIXEL_TOLERANCE = 1e-6


def resample_patch(
    read: Callable[[int, int, int, int], NDArray[np.uint8]],
    left: float,
    top: float,
    side: float,
    px: int,
    on_resize: Callable[[float], None] | None = None,
) -> NDArray[np.uint8]:
    """Read a square and resample it to (px, px, 3) uint8.

    The square is read with the margin that the filter needs, so that neighbouring squares meet
    without a seam. Where no resampling is needed, pixels are returned as they are.

    Parameters
    ----------
    read
        ``read(x, y, width, height)`` returns source pixels, white outside the source.
    left, top, side
        Corner and side of the square in source px, fractions included.
    px
        Side of the result.
    on_resize
        Called with the seconds spent on resampling.
    """
    whole_x, whole_y = round(left), round(top)
    if (
        abs(side - px) < WHOLE_PIXEL_TOLERANCE
        and abs(left - whole_x) < WHOLE_PIXEL_TOLERANCE
        and abs(top - whole_y) < WHOLE_PIXEL_TOLERANCE
    ):
        return read(whole_x, whole_y, px, px)
    from PIL import Image

    margin = math.ceil(max(side / px, 1.0))
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    x1, y1 = math.ceil(left + side) + margin, math.ceil(top + side) + margin
    pixels = np.ascontiguousarray(read(x0, y0, x1 - x0, y1 - y0))
    box = (left - x0, top - y0, left - x0 + side, top - y0 + side)
    start = time.perf_counter()
    # fromarray and the array interface would copy once more than bytes do.
    image = Image.frombytes("RGB", (x1 - x0, y1 - y0), pixels)
    image = image.resize((px, px), Image.Resampling.BILINEAR, box=box)
    resized = np.frombuffer(bytearray(image.tobytes()), np.uint8).reshape(px, px, 3)
    if on_resize is not None:
        on_resize(time.perf_counter() - start)
    return resized

"""A whole slide small enough to look at at once."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTileError
from .slide import Slide

# The mask is made on an overview of about this many um per px: cells blur, texture stays.
OVERVIEW_MPP = 8.0
# Where the pixel size is unknown, scans of 0.25 to 1 um/px are supposed: reduced eightfold, more
# when that leaves the overview longer than 1,200 px, less when it leaves it below 300 px.
DEFAULT_DOWNSAMPLE = 8.0
OVERVIEW_PX_RANGE = (300, 1200)
# A whole slide of many cm is looked at more coarsely, to take no more than a second.
MAX_OVERVIEW_PX = 3000

# A level is read in bands of about so many px, as a scanner's coarse level may hold 40 million,
# and a band with damage in it in blocks.
BAND_HEIGHT_PX = 512
BLOCK_SIDE_PX = 128


def read_overview(slide: Slide, mpp: float | None) -> tuple[NDArray[np.uint8], float]:
    """The whole slide (h, w, 3) at about 8 um/px (mpp: um per level-0 px), and its downsample.

    Blocks that cannot be decoded are white. SlideError when the slide cannot be read, DamagedTile
    when none of it can.
    """
    from PIL import Image

    downsample = choose_overview_downsample(max(slide.width, slide.height), mpp)
    index = slide.best_level_for_downsample(downsample)
    level = slide.levels[index]
    scale = downsample / level.downsample
    width, height = max(1, int(level.width / scale)), max(1, int(level.height / scale))
    out = np.full((height, width, 3), 255, np.uint8)
    rows = max(1, int(BAND_HEIGHT_PX / scale))
    damage: DamagedTileError | None = None
    seen = False
    for first in range(0, height, rows):
        last = min(first + rows, height)
        top, bottom = first * scale, min(last * scale, level.height)
        y = math.floor(top)
        try:
            pixels = read_band(slide, index, y, math.ceil(bottom) - y)
        except DamagedTileError as error:
            damage = error
            continue
        box = (0, top - y, min(width * scale, level.width), bottom - y)
        band = Image.fromarray(pixels).resize((width, last - first), Image.Resampling.BOX, box=box)
        out[first:last] = np.asarray(band)
        seen = True
    if damage is not None and not seen:
        raise damage
    # The last, partial row and column repeat their neighbours, so that the whole is covered.
    pad = ((0, int(height * downsample < slide.height)), (0, int(width * downsample < slide.width)))
    return np.pad(out, (*pad, (0, 0)), mode="edge"), downsample


def read_band(slide: Slide, index: int, y: int, height: int) -> NDArray[np.uint8]:
    """Rows of a level (height, W, 3), damaged blocks white; DamagedTile when all are."""
    width = slide.levels[index].width
    try:
        return slide.read_region(0, y, width, height, index)
    except DamagedTileError as error:
        pixels = np.full((height, width, 3), 255, np.uint8)
        seen = False
        for top, left in product(range(0, height, BLOCK_SIDE_PX), range(0, width, BLOCK_SIDE_PX)):
            with suppress(DamagedTileError):
                block = pixels[top : top + BLOCK_SIDE_PX, left : left + BLOCK_SIDE_PX]
                high, wide = block.shape[:2]
                block[:] = slide.read_region(left, y + top, wide, high, index)
                seen = True
        if not seen:
            raise error
        return pixels


def choose_overview_downsample(longest_side: int, mpp: float | None) -> float:
    """Level-0 px of one px of the overview, from the slide's longer side in px."""
    if mpp is None:
        shortest_ok, longest_ok = OVERVIEW_PX_RANGE
        wanted = max(longest_side / longest_ok, min(DEFAULT_DOWNSAMPLE, longest_side / shortest_ok))
    else:
        wanted = OVERVIEW_MPP / mpp
    return max(wanted, longest_side / MAX_OVERVIEW_PX, 1.0)

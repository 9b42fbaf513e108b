"""Read a low-resolution overview of a whole slide."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTileError
from .slide import Slide

# Resolution of the overview in um per px: cells blur, tissue texture stays.
OVERVIEW_MPP = 8.0
# Where the pixel size is unknown, 0.25 to 1 um/px are assumed: reduced eightfold, more where the
# overview would be longer than 1,200 px, less where it would be shorter than 300 px.
DEFAULT_DOWNSAMPLE = 8.0
OVERVIEW_PX_RANGE = (300, 1200)
# A slide of many cm gets a coarser overview, which takes no more than a second.
MAX_OVERVIEW_PX = 3000

# A level is read in bands of about this height, as the coarsest level of a scanner may have 40
# million px, and a damaged band is read in blocks.
BAND_HEIGHT_PX = 512
BLOCK_SIDE_PX = 128


def read_overview(slide: Slide, mpp: float | None) -> tuple[NDArray[np.uint8], float]:
    """Read the whole slide at about 8 um/px.

    Parameters
    ----------
    mpp
        um per level-0 px, None if unknown.

    Returns
    -------
    overview
        (h, w, 3) uint8; blocks that cannot be decoded are white.
    downsample
        Level-0 px per px of the overview.

    Raises
    ------
    DamagedTileError
        Nothing of the slide can be decoded.
    SlideError
        The slide cannot be read.
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
    any_read = False
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
        any_read = True
    if damage is not None and not any_read:
        raise damage
    # The last, partial row and column repeat their neighbours, so the whole slide is covered.
    pad = ((0, int(height * downsample < slide.height)), (0, int(width * downsample < slide.width)))
    return np.pad(out, (*pad, (0, 0)), mode="edge"), downsample


def read_band(slide: Slide, index: int, y: int, height: int) -> NDArray[np.uint8]:
    """Read rows of a level (height, W, 3) with damaged blocks in white.

    Raises DamagedTileError if all blocks are damaged.
    """
    width = slide.levels[index].width
    try:
        return slide.read_region(0, y, width, height, index)
    except DamagedTileError as error:
        pixels = np.full((height, width, 3), 255, np.uint8)
        any_read = False
        for top, left in product(range(0, height, BLOCK_SIDE_PX), range(0, width, BLOCK_SIDE_PX)):
            with suppress(DamagedTileError):
                block = pixels[top : top + BLOCK_SIDE_PX, left : left + BLOCK_SIDE_PX]
                block_height, block_width = block.shape[:2]
                block[:] = slide.read_region(left, y + top, block_width, block_height, index)
                any_read = True
        if not any_read:
            raise error
        return pixels


def choose_overview_downsample(longest_side: int, mpp: float | None) -> float:
    """Return level-0 px per px of the overview, from the longer side of the slide in px."""
    if mpp is None:
        min_side, max_side = OVERVIEW_PX_RANGE
        downsample = max(longest_side / max_side, min(DEFAULT_DOWNSAMPLE, longest_side / min_side))
    else:
        downsample = OVERVIEW_MPP / mpp
    return max(downsample, longest_side / MAX_OVERVIEW_PX, 1.0)

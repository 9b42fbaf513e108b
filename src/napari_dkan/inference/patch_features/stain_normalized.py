"""A slide whose patches are stain-normalized to the training sections."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ...errors import DamagedTileError, SlideError
from ...model.stain_normalization import StainNormalizer, StainProfile, measure_stain
from ...slide import Slide
from ...slide.tissue import find_tissue
from .patch_geometry import PatchReader

# The stain is measured on tiles of 256 um: quick to read, and fine enough to resolve nuclei.
STAIN_SAMPLE_TILES, STAIN_TILE_PX, STAIN_TILE_MPP = 64, 128, 2.0
STAIN_TILE_GROUPS = 8  # of tiles; the median of their stains counts
STAIN_SAMPLE_SEED = 2021


def measure_slide_stain(slide: Slide, mpp: float, method: str) -> StainProfile:
    """Measure the stain of a slide on random tissue tiles with a fixed seed.

    Parameters
    ----------
    mpp : float
        um per level-0 px.
    method : str
        As for `measure_stain`.

    Raises
    ------
    SlideError
        When the slide cannot be read, or has too little stained tissue.
    """
    tissue = find_tissue(slide, mpp)
    rows, columns = np.nonzero(tissue.mask if tissue.mask.any() else np.ones_like(tissue.mask))
    rng = np.random.default_rng(STAIN_SAMPLE_SEED)
    sample = rng.choice(len(rows), min(STAIN_SAMPLE_TILES, len(rows)), replace=False)
    side = STAIN_TILE_PX * STAIN_TILE_MPP / mpp
    groups: list[list[NDArray[np.uint8]]] = [[] for _ in range(STAIN_TILE_GROUPS)]
    for number, cell in enumerate(sample):
        x, y = (float(axis[cell] + 0.5) * tissue.downsample for axis in (columns, rows))
        with suppress(DamagedTileError):
            groups[number % STAIN_TILE_GROUPS].append(slide.read_patch(x, y, side, STAIN_TILE_PX))
    try:
        return measure_stain(method, [np.stack(tiles) for tiles in groups if tiles])
    except SlideError as error:
        raise SlideError(
            f"The stain of {slide.name} cannot be measured ({error}), and this checkpoint "
            "needs it; take a checkpoint without stain normalisation."
        ) from None


class StainNormalizedSlide:
    """A view of a slide whose patches are stain-normalized. Thread-safe.

    The slide's stain is measured once, when the first patch is read.
    """

    def __init__(self, slide: Slide, mpp: float, target_stain: StainProfile) -> None:
        self._slide, self._mpp, self._target_stain = slide, mpp, target_stain
        self._normalizer: StainNormalizer | None = None
        self._lock = Lock()

    @property
    def width(self) -> int:
        """Width of the slide in level-0 px."""
        return self._slide.width

    @property
    def height(self) -> int:
        """Height of the slide in level-0 px."""
        return self._slide.height

    @property
    def normalizer(self) -> StainNormalizer:
        """The normalizer from this slide's stain to the target's."""
        with self._lock:
            if self._normalizer is None:
                stain = measure_slide_stain(self._slide, self._mpp, self._target_stain.method)
                self._normalizer = StainNormalizer(stain, self._target_stain)
            return self._normalizer

    def read_patch(
        self,
        x: float,
        y: float,
        side: float,
        px: int,
        on_resize: Callable[[float], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Read a patch as `Slide.read_patch` and normalize its stain."""
        return self.normalizer(self._slide.read_patch(x, y, side, px, on_resize))


def make_patch_reader(slide: Slide, mpp: float, target_stain: StainProfile | None) -> PatchReader:
    """Get the slide, or its stain-normalized view where a checkpoint has a target stain."""
    return slide if target_stain is None else StainNormalizedSlide(slide, mpp, target_stain)

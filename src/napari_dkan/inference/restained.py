"""A slide whose pixels are read as if it had been stained like the training sections."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedTile, SlideError
from ..model.stain_norm import Normaliser, Stain, measure
from ..slide import Slide
from ..slide.tissue import find_tissue
from .patches import Squares

# A stain is looked at on tiles of tissue of 256 um, coarse enough to be read quickly and fine
# enough for nuclei to show their colour.
TILES, PX, MPP = 64, 128, 2.0
GROUPS = 8  # of tiles; each says what the stain is, and the middle counts
SEED = 2021


def stain_of(slide: Slide, mpp: float, method: str) -> Stain:
    """The stain of a whole slide; always the same for the same slide and um per pixel.

    Raises SlideError when it cannot be read, or shows too little stained tissue.
    """
    tissue = find_tissue(slide, mpp)
    rows, columns = np.nonzero(tissue.mask if tissue.mask.any() else np.ones_like(tissue.mask))
    draw = np.random.default_rng(SEED)
    chosen = draw.choice(len(rows), min(TILES, len(rows)), replace=False)
    side = PX * MPP / mpp
    groups: list[list[NDArray[np.uint8]]] = [[] for _ in range(GROUPS)]
    for number, cell in enumerate(chosen):
        x, y = (float(at[cell] + 0.5) * tissue.downsample for at in (columns, rows))
        with suppress(DamagedTile):
            groups[number % GROUPS].append(slide.read_square(x, y, side, PX))
    try:
        return measure(method, [np.stack(tiles) for tiles in groups if tiles])
    except SlideError as error:
        raise SlideError(
            f"The stain of {slide.name} cannot be measured ({error}), and this checkpoint "
            "needs it; take a checkpoint without stain normalisation."
        ) from None


class RestainedSlide:
    """A slide's squares after stain normalisation.

    Its stain is measured once, when the first square is read. Safe to read in threads.
    """

    def __init__(self, slide: Slide, mpp: float, target: Stain) -> None:
        self._slide, self._mpp, self._target = slide, mpp, target
        self._normaliser: Normaliser | None = None
        self._lock = Lock()

    @property
    def width(self) -> int:
        return self._slide.width

    @property
    def height(self) -> int:
        return self._slide.height

    @property
    def normaliser(self) -> Normaliser:
        with self._lock:
            if self._normaliser is None:
                own = stain_of(self._slide, self._mpp, self._target.method)
                self._normaliser = Normaliser(own, self._target)
            return self._normaliser

    def read_square(
        self,
        x: float,
        y: float,
        side: float,
        px: int,
        on_resize: Callable[[float], None] | None = None,
    ) -> NDArray[np.uint8]:
        """As `Slide.read_square`."""
        return self.normaliser(self._slide.read_square(x, y, side, px, on_resize))


def squares_of(slide: Slide, mpp: float, target: Stain | None) -> Squares:
    """The slide as a checkpoint sees it: normalised to the target where there is one."""
    return slide if target is None else RestainedSlide(slide, mpp, target)

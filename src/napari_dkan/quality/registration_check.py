"""Check that measured spots are registered to their slide.

They must be on the slide and on tissue, not mirrored, and at the right pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..expression.array_geometry import mpp_from_spots
from ..spatial.spots import Spots

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


# Share of spots: none on her2st C2 to C5 where they lie right, 11 % and more once they are
# shifted by 0.4 mm, swapped, or another section's.
_MAX_OFF_TISSUE_FRACTION = 0.05
_MAX_MPP_RATIO = 1.1  # pixel sizes further apart than this factor are two scales


@dataclass(frozen=True)
class RegistrationCheck:
    """Where the spots lie.

    off_slide, off_tissue : (N,) bool; a spot off the slide is off the tissue too. All False for
        `off_tissue` while the tissue is not known.
    scale_mpp : um per px that the spot array fits, None where it does not tell.
    warning : "" or a sentence for the person.
    """

    off_slide: NDArray[np.bool_]
    off_tissue: NDArray[np.bool_]
    fitted_mpp: float | None
    warning: str


def check_registration(
    spots: Spots,
    width: int,
    height: int,
    mpp: float | None,
    tissue: BaseGeometry | None,
) -> RegistrationCheck:
    """Compare spots with the slide they are said to lie on.

    width, height : of the slide in level-0 px. mpp : its um per px, None when unknown.
    tissue : in level-0 px, None when not searched for yet.

    A spot is off the tissue when no part of it touches any. Not to be seen in this way: a shift
    by less than about the pitch, spots of a section of the same outline, and any shift where
    the tissue reaches beyond the array on all sides.
    """
    x, y = spots.xy.T
    off_slide = (x < 0) | (y < 0) | (x >= width) | (y >= height)
    scale = mpp_from_spots(spots)
    off_tissue = off_slide | _find_off_tissue(spots, tissue, mpp or scale)
    sentence = _format_warning(spots, off_slide, off_tissue, mpp, scale)
    if not sentence and tissue is not None and tissue.is_empty:
        sentence = "No tissue was found on the slide, so nothing tells whether its spots lie right."
    return RegistrationCheck(off_slide, off_tissue, scale, sentence)


def _format_warning(
    spots: Spots,
    off_slide: NDArray[np.bool_],
    off_tissue: NDArray[np.bool_],
    mpp: float | None,
    scale: float | None,
) -> str:
    """What is wrong, most telling first, and what to do; "" when nothing is."""
    seen = []
    if off_slide.any():
        seen.append(f"{int(off_slide.sum())} of {len(spots)} spots lie off the slide")
    elif off_tissue.mean() > _MAX_OFF_TISSUE_FRACTION:
        seen.append(f"{int(off_tissue.sum())} of {len(spots)} spots lie off the tissue")
    cause = ""
    if mpp and scale and max(scale / mpp, mpp / scale) > _MAX_MPP_RATIO:
        cause = (
            f"their array fits {scale:.3g} um per pixel, the slide has {mpp:.3g}: the coordinates "
            "are of a scan of another resolution"
        )
    elif _is_mirrored(spots):
        cause = "they lie mirrored, as if x and y were swapped"
    elif seen:
        cause = "the coordinates may be another slide's, or shifted"
    if not cause:
        return ""
    what = ": ".join([*seen, cause]) if seen else f"The spots may lie wrong: {cause}"
    return f"{what}; register the spots with three landmarks or give the right file."


def _is_mirrored(spots: Spots) -> bool:
    """Whether the array's columns and rows, as the files number them, turn the other way round.

    No scan does that; sections are mounted and scanned face up.
    """
    if spots.array is None or len(spots) < 4:
        return False
    design = np.column_stack([spots.array, np.ones(len(spots))]).astype(float)
    if np.linalg.matrix_rank(design) < 3:
        return False
    affine, *_ = np.linalg.lstsq(design, spots.xy, rcond=None)
    return bool(np.linalg.det(affine[:2]) < 0)


def _find_off_tissue(
    spots: Spots, tissue: BaseGeometry | None, mpp: float | None
) -> NDArray[np.bool_]:
    import shapely

    if tissue is None or tissue.is_empty:
        return np.zeros(len(spots), bool)
    radius = (spots.diameter_um or 0.0) / 2 / mpp if mpp else 0.0
    shapely.prepare(tissue)
    return ~shapely.dwithin(tissue, shapely.points(spots.xy), radius)

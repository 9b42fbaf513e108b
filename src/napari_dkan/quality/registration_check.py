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


# Share of spots: none on her2st C2 to C5 at their true positions, 11 % and more when they are
# shifted by 0.4 mm, have x and y swapped, or belong to another section.
_MAX_OFF_TISSUE_FRACTION = 0.05
_MAX_MPP_RATIO = 1.1


@dataclass(frozen=True)
class RegistrationCheck:
    """Result of the check.

    Attributes
    ----------
    off_slide, off_tissue : (N,) bool arrays
        A spot off the slide is also off the tissue. `off_tissue` is all False while the tissue
        is not known.
    fitted_mpp : float or None
        um per px that the spot array fits.
    warning : str
        A sentence for the user, "" without a warning.
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
    """Check spots against the slide that they belong to.

    A spot is off the tissue when no part of it touches tissue. The check does not detect shifts
    by less than about the pitch, spots of another section with the same outline, and shifts where
    the tissue extends beyond the array on all sides.

    Parameters
    ----------
    width, height : int
        Size of the slide in level-0 px.
    mpp : float or None
        um per px of the slide, None when unknown.
    tissue : geometry or None
        In level-0 px, None when not detected yet.
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
    """Sentence on what is wrong and what to do, "" when nothing is wrong."""
    found = []
    if off_slide.any():
        found.append(f"{int(off_slide.sum())} of {len(spots)} spots lie off the slide")
    elif off_tissue.mean() > _MAX_OFF_TISSUE_FRACTION:
        found.append(f"{int(off_tissue.sum())} of {len(spots)} spots lie off the tissue")
    cause = ""
    if mpp and scale and max(scale / mpp, mpp / scale) > _MAX_MPP_RATIO:
        cause = (
            f"their array fits {scale:.3g} um per pixel, the slide has {mpp:.3g}: the coordinates "
            "are of a scan of another resolution"
        )
    elif _is_mirrored(spots):
        cause = "they lie mirrored, as if x and y were swapped"
    elif found:
        cause = "the coordinates may be another slide's, or shifted"
    if not cause:
        return ""
    problem = ": ".join([*found, cause]) if found else f"The spots may lie wrong: {cause}"
    return f"{problem}; register the spots with three landmarks or give the right file."


def _is_mirrored(spots: Spots) -> bool:
    """Whether columns and rows of the array are mirrored, which no scan of a section is."""
    if spots.array_coords is None or len(spots) < 4:
        return False
    design = np.column_stack([spots.array_coords, np.ones(len(spots))]).astype(float)
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
    on_tissue: NDArray[np.bool_] = shapely.dwithin(tissue, shapely.points(spots.xy), radius)
    return ~on_tissue

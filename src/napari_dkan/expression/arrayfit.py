"""The pixel size that a spot array gives away: its pitch is known in micrometres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..spatial.spots import Spots

ST_PITCH_UM = 200.0  # the legacy Spatial Transcriptomics array
ST_DIAMETER_UM = 100.0
VISIUM_PITCH_UM = 100.0
VISIUM_DIAMETER_UM = 55.0

_HEX_CELL_AREA = 0.5 * np.sqrt(3.0) / 2.0  # area of one (column, row) step on a hexagonal array


def fit_mpp(
    array: NDArray[np.floating], pixels: NDArray[np.floating], pitch_um: float, cell_area: float = 1.0
) -> float:
    """Micrometres per pixel from spot centres on an array of known pitch.

    array, pixels : (N, 2) coordinates of the same spots, x first.
    pitch_um : centre-to-centre distance of neighbouring spots.
    cell : area of one array step along each axis, in pitches squared (1 on a square array).

    An affine map is fitted by iteratively reweighted least squares (Tukey's weights), so a few
    misplaced spots do not move it; the scale is the square root of its determinant, which a
    rotated or mirrored array leaves alone. Nearest-neighbour distances would underestimate the
    pitch, because positions jitter.

    Raises SpotsError when the spots do not span a plane.
    """
    design = np.column_stack([array, np.ones(len(array))]).astype(float)
    target = np.asarray(pixels, dtype=float)
    if len(design) < 4 or np.linalg.matrix_rank(design) < 3:
        raise SpotsError(
            "The pixel size cannot be fitted: it takes four spots that are not all in one line."
        )
    weight = np.ones(len(design))
    for _ in range(20):
        root = np.sqrt(weight)[:, None]
        affine, *_ = np.linalg.lstsq(design * root, target * root, rcond=None)
        distance = np.linalg.norm(target - design @ affine, axis=1)
        spread = max(1.4826 * float(np.median(distance)), 1e-9)
        weight = np.clip(1 - (distance / (4.685 * spread)) ** 2, 0, None) ** 2
        if np.count_nonzero(weight) < 4:
            break
    determinant = abs(float(np.linalg.det(affine[:2])))
    if determinant < 1e-6:
        raise SpotsError("The pixel size cannot be fitted: all spots lie on the same pixels.")
    return float(pitch_um * np.sqrt(cell_area / determinant))


def mpp_from_spots(spots: Spots) -> float | None:
    """Micrometres per pixel of the slide under these spots, None where they do not tell.

    Needs array coordinates and a pitch. On a hexagonal (Visium) array every second column of a
    row is empty, which is how it is recognised.
    """
    if spots.array is None or not spots.pitch_um or len(spots) < 4:
        return None
    parity = spots.array.sum(axis=1) % 2
    hexagonal = len(spots) > 20 and bool((parity == parity[0]).all())
    try:
        return fit_mpp(
            spots.array.astype(float), spots.xy, spots.pitch_um, _HEX_CELL_AREA if hexagonal else 1.0
        )
    except SpotsError:
        return None

"""Convert coordinate order, and fit affine transforms to landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SpotsError


def swap_xy(points: ArrayLike) -> NDArray[np.float64]:
    """Convert (x, y) to (row, column) and back; the last axis has length 2."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (2,):
        raise ValueError(f"points need two coordinates, not the shape {array.shape}")
    return array[..., ::-1].copy()


_MIN_ASPECT = 0.05  # landmarks whose width / length is below this are in a line
_SCALE_RANGE = (0.02, 50.0)  # between two scans; 40x and a thumbnail differ by about 50
_MAX_STRETCH = 1.5  # ratio of the two directions; scans of one section differ by a few percent


@dataclass(frozen=True)
class AffineTransform:
    """An affine transform between the pixels of two images.

    Attributes
    ----------
    matrix
        (2, 3) float64; (x, y) is mapped to ``matrix[:, :2] @ (x, y) + matrix[:, 2]``.
    """

    matrix: NDArray[np.float64]

    def apply(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Transform points (N, 2) (x, y)."""
        points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    @property
    def scale(self) -> float:
        """Target pixels per source pixel, the geometric mean of both directions."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def rotation_deg(self) -> float:
        """Rotation from source to target in degrees, -180 to 180, clockwise as y points down."""
        (a, b), (c, d) = self.matrix[:, :2]
        return math.degrees(math.atan2(c - b, a + d))


def fit_affine_to_landmarks(source: ArrayLike, target: ArrayLike) -> AffineTransform:
    """Fit the affine transform from source to target by least squares; exact for three pairs.

    Parameters
    ----------
    source, target
        (K, 2) positions of the same landmarks on both images.

    Raises
    ------
    SpotsError
        There are fewer than three pairs, they lie in one line, or the transform is not one
        between two scans of one section: mirrored, stretched or of an implausible scale, as
        landmarks clicked in another order give.
    """
    source_xy, target_xy = (
        np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in (source, target)
    )
    n = len(source_xy)
    if n != len(target_xy):
        raise SpotsError(
            f"{n} landmarks on one image but {len(target_xy)} on the other; give pairs."
        )
    if n < 3:
        raise SpotsError(f"{n} landmarks are too few; click three places on both images.")
    if not (np.isfinite(source_xy).all() and np.isfinite(target_xy).all()):
        raise SpotsError("Some landmarks have no finite position; click them again.")
    for points, image in ((source_xy, "first"), (target_xy, "second")):
        largest, smallest = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if smallest <= _MIN_ASPECT * largest:
            raise SpotsError(
                f"The landmarks on the {image} image lie in one line; "
                "click three places that span a wide triangle."
            )
    center = source_xy.mean(axis=0)  # large coordinates would lose precision
    design = np.column_stack([source_xy - center, np.ones(n)])
    solution, *_ = np.linalg.lstsq(design, target_xy, rcond=None)
    linear = solution[:2].T
    largest, smallest = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) < 0:
        raise SpotsError(
            "These landmarks would mirror the section; click the same places in the same order "
            "on both images."
        )
    if largest > _MAX_STRETCH * smallest:
        stretch = largest / max(smallest, 1e-9)
        raise SpotsError(
            f"These landmarks would stretch the section {stretch:.1f} times in one direction; "
            "click the same places in the same order on both images."
        )
    scale = np.sqrt(largest * smallest)
    if not _SCALE_RANGE[0] <= scale <= _SCALE_RANGE[1]:
        raise SpotsError(
            f"These landmarks would scale the section {scale:.3g} times, which no two scans "
            "differ by; click the same places on both images."
        )
    return AffineTransform(np.column_stack([linear, solution[2] - linear @ center]))

"""Coordinate order, (x, y) against (row, column), and affine maps fitted to landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import SpotsError


def swap_xy(points: ArrayLike) -> NDArray[np.float64]:
    """(x, y) -> (row, column) and back; the last axis has length 2."""
    array = np.asarray(points, dtype=np.float64)
    if array.shape[-1:] != (2,):
        raise ValueError(f"points need two coordinates, not the shape {array.shape}")
    return array[..., ::-1].copy()


_MIN_ASPECT = 0.05  # landmarks this much narrower than long are taken for a line
_SCALE_RANGE = (0.02, 50.0)  # between two scans; 40x against a thumbnail is about 1 : 50
_MAX_STRETCH = 1.5  # one direction against the other; scans of one section differ by a few percent


@dataclass(frozen=True)
class AffineTransform:
    """A map between the pixels of two images.

    matrix : (2, 3) float64; a point (x, y) goes to ``matrix[:, :2] @ (x, y) + matrix[:, 2]``.
    """

    matrix: NDArray[np.float64]

    def apply(self, xy: ArrayLike) -> NDArray[np.float64]:
        """(N, 2) points (x, y) -> (N, 2)."""
        points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    @property
    def scale(self) -> float:
        """Target pixels per source pixel, the mean of both directions."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def rotation_deg(self) -> float:
        """Turn from source to target in degrees, -180 to 180, clockwise as y points down."""
        (a, b), (c, d) = self.matrix[:, :2]
        return math.degrees(math.atan2(c - b, a + d))


def fit_affine_to_landmarks(source: ArrayLike, target: ArrayLike) -> AffineTransform:
    """The affine map that takes source to target, both (K, 2), by least squares; exact for three.

    Raises SpotsError when there are fewer than three pairs, they lie in one line, or the map is
    none between two scans of one section: mirrored, stretched or of an absurd scale, which is
    what landmarks clicked in another order give.
    """
    a, b = (np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in (source, target))
    if len(a) != len(b):
        raise SpotsError(f"{len(a)} landmarks on one image but {len(b)} on the other; give pairs.")
    if len(a) < 3:
        raise SpotsError(f"{len(a)} landmarks are too few; click three places on both images.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise SpotsError("Some landmarks have no finite position; click them again.")
    for points, which in ((a, "first"), (b, "second")):
        long, thin = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if thin <= _MIN_ASPECT * long:
            raise SpotsError(
                f"The landmarks on the {which} image lie in one line; "
                "click three places that span a wide triangle."
            )
    centre = a.mean(axis=0)  # large coordinates far from 0 would cost digits
    solved, *_ = np.linalg.lstsq(np.column_stack([a - centre, np.ones(len(a))]), b, rcond=None)
    linear = solved[:2].T
    long, thin = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) < 0:
        raise SpotsError(
            "These landmarks would mirror the section; click the same places in the same order "
            "on both images."
        )
    if long > _MAX_STRETCH * thin:
        raise SpotsError(
            f"These landmarks would stretch the section {long / max(thin, 1e-9):.1f} times in one "
            "direction; click the same places in the same order on both images."
        )
    if not _SCALE_RANGE[0] <= np.sqrt(long * thin) <= _SCALE_RANGE[1]:
        raise SpotsError(
            f"These landmarks would scale the section {np.sqrt(long * thin):.3g} times, which no "
            "two scans differ by; click the same places on both images."
        )
    return AffineTransform(np.column_stack([linear, solved[2] - linear @ centre]))

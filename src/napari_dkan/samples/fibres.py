"""Collagen: the direction fibres run in, and their texture.

Fibres follow the level lines of a smooth potential that grows away from nests, glands and
vessels, so they wave across the stroma and wrap around what lies in it. The texture is a line
integral convolution of noise along that direction; each pass doubles the length over which it
averages, because the flow over 2h is the flow over h applied twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .layout import GRID_PITCH_UM, ScalarField, TissueLayout, make_smooth_noise


def compute_fibre_direction(rng: np.random.Generator, layout: TissueLayout) -> tuple[ScalarField, ScalarField]:
    """Unit vector (x, y) along the fibres on the layout's grid."""
    n = len(layout.tissue)
    obstacle = layout.clip_by_rings(np.minimum(-layout.nests, -layout.fat))
    theta = rng.uniform(0, np.pi)
    along = (np.arange(n, dtype=np.float32) + 0.5) * GRID_PITCH_UM
    plane = np.cos(theta) * along[None, :] + np.sin(theta) * along[:, None]
    potential = plane + 75 * make_smooth_noise(rng, (n, n), 130 / GRID_PITCH_UM)
    potential += 9 * make_smooth_noise(rng, (n, n), 24 / GRID_PITCH_UM)
    potential += 55 * np.exp(-np.clip(obstacle, 0, None) / 45)
    potential += 0.25 * np.clip(layout.tissue, 0, 120)
    gy, gx = np.gradient(potential)
    norm = np.hypot(gx, gy) + 1e-6
    return (-gy / norm).astype(np.float32), (gx / norm).astype(np.float32)


def make_fibre_texture(
    rng: np.random.Generator, dx: ScalarField, dy: ScalarField, pitch: float
) -> tuple[ScalarField, ScalarField]:
    """Fibrils and bundles along (dx, dy), each with mean 0 and standard deviation 1.

    pitch : um per pixel of dx and dy; fibrils are about 1 um wide, bundles about 5 um.
    """
    shape = dx.shape
    crimp = 0.34 * make_smooth_noise(rng, shape, 8 / pitch)
    cos, sin = np.cos(crimp), np.sin(crimp)
    flow_x, flow_y = 1.25 * (cos * dx - sin * dy), 1.25 * (sin * dx + cos * dy)
    fibrils = make_smooth_noise(rng, shape, 0.55 / pitch)
    bundles = make_smooth_noise(rng, shape, 2.1 / pitch)
    for doubling in range(5):
        ahead = _downstream_index(flow_x, flow_y)
        if doubling < 4:
            fibrils = 0.5 * (fibrils + _take(fibrils, ahead))
        bundles = 0.5 * (bundles + _take(bundles, ahead))
        flow_x = flow_x + _take(flow_x, ahead)
        flow_y = flow_y + _take(flow_y, ahead)
    return _standardize(fibrils), _standardize(bundles)


def _downstream_index(flow_x: ScalarField, flow_y: ScalarField) -> NDArray[np.int32]:
    """Flat index of the pixel that the flow leads to from each pixel."""
    h, w = flow_x.shape
    column = np.arange(w, dtype=np.float32)[None, :] + flow_x
    row = np.arange(h, dtype=np.float32)[:, None] + flow_y
    np.clip(np.rint(column, out=column), 0, w - 1, out=column)
    np.clip(np.rint(row, out=row), 0, h - 1, out=row)
    return row.astype(np.int32) * np.int32(w) + column.astype(np.int32)


def _take(field: ScalarField, index: NDArray[np.int32]) -> ScalarField:
    return field.ravel().take(index)


def _standardize(field: ScalarField) -> ScalarField:
    return (field - field.mean()) / (field.std() + 1e-9)

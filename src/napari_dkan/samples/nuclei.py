"""Nuclei: a set of drawn shapes for each kind of cell, stamped where the cells are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cells import NUCLEUS_TYPES, CellArrays, NucleusType
from .layout import ScalarField, make_smooth_noise

N_ORIENTATIONS = 32  # directions a shape is drawn in, over half a turn
N_SHAPES = 8  # different shapes per direction


def paint_nuclei(rng: np.random.Generator, h: ScalarField, e: ScalarField, cells: CellArrays, mpp: float) -> None:
    """Stamp every nucleus into the stain maps, in place.

    h, e : haematoxylin and eosin at mpp um per pixel. A nucleus displaces the eosin under it.
    Plasma cells bring their eccentric cytoplasm with them.
    """
    turn = np.rint(cells.angle / np.pi * N_ORIENTATIONS).astype(int) % N_ORIENTATIONS
    which = turn * N_SHAPES + rng.integers(0, N_SHAPES, len(turn))
    strength = np.clip(rng.normal(1, 0.17, len(turn)), 0.6, 1.5).astype(np.float32)
    for number, kind in enumerate(NUCLEUS_TYPES):
        rows = np.flatnonzero(cells.type_index == number)
        if kind.chromatin == "none" or not len(rows):
            continue
        cover, chromatin = _draw_nucleus_shapes(rng, kind, mpp)
        if kind.name == "plasma":
            _paint_plasma_cytoplasm(rng, h, e, cells.x[rows], cells.y[rows], mpp)
        half = cover.shape[1] // 2
        column = np.rint(cells.x[rows] / mpp).astype(int) - half
        row = np.rint(cells.y[rows] / mpp).astype(int) - half
        size = cover.shape[1]
        inside = (row >= 0) & (column >= 0) & (row + size <= len(h)) & (column + size <= len(h))
        for i in np.flatnonzero(inside):
            shape = which[rows[i]]
            at = np.s_[row[i] : row[i] + size, column[i] : column[i] + size]
            np.maximum(h[at], chromatin[shape] * strength[rows[i]], out=h[at])
            e[at] *= 1 - 0.35 * cover[shape]


def _draw_nucleus_shapes(
    rng: np.random.Generator, kind: NucleusType, mpp: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cover (0..1) and haematoxylin of TURNS x VARIANTS drawn nuclei, each (n, size, size)."""
    n = N_ORIENTATIONS * N_SHAPES
    half = int(np.ceil(0.62 * kind.long_axis_um * np.exp(2 * kind.spread) / mpp)) + 2
    at = np.arange(-half, half + 1, dtype=np.float32) * mpp
    angle = (np.repeat(np.arange(N_ORIENTATIONS), N_SHAPES) / N_ORIENTATIONS * np.pi)[:, None, None]
    u = np.cos(angle) * at[None, None, :] + np.sin(angle) * at[None, :, None]
    v = np.cos(angle) * at[None, :, None] - np.sin(angle) * at[None, None, :]

    def each(mean: float, spread: float) -> NDArray:
        return (mean * np.exp(spread * np.clip(rng.normal(0, 1, n), -2, 2)))[:, None, None]

    size = each(1.0, kind.spread)
    a, b = 0.5 * kind.long_axis_um * size, 0.5 * kind.short_axis_um * size * each(1.0, 0.08)
    if kind.long_axis_um > 2.2 * kind.short_axis_um:  # spindle nuclei bend
        v = v + rng.normal(0, 0.035, n)[:, None, None] * u * u / (0.3 * kind.long_axis_um)
    phi = np.arctan2(v / b, u / a)
    outline = np.ones_like(phi)
    for k, depth in ((2, 0.05), (3, 0.045), (5, 0.025)):
        height, phase = rng.normal(0, depth, n), rng.uniform(0, 2 * np.pi, n)
        outline += height[:, None, None] * np.cos(k * phi + phase[:, None, None])
    inwards = (outline - np.hypot(u / a, v / b)) * np.sqrt(a * b)  # about um from the rim
    blur = each(0.35, 0.25)
    cover = 1 / (1 + np.exp(-np.clip(inwards / (0.5 * blur), -30, 30)))
    side = len(at)
    noise = make_smooth_noise(rng, (n * side, side), 0.75 / mpp).reshape(n, side, side)
    tone: NDArray | float = 1.0 + 0.06 * noise
    if kind.chromatin == "vesicular":
        rim = np.exp(-(((inwards - 0.4) / 0.55) ** 2))
        pale = rng.uniform(0.55, 1.0, n)[:, None, None]
        tone = pale * (0.82 + 0.20 * noise) + 0.38 * rim
        for _ in range(2):
            x0, y0 = (rng.normal(0, 0.16, (2, n)) * kind.short_axis_um)[:, :, None, None]
            spot = np.exp(-((u - x0) ** 2 + (v - y0) ** 2) / (2 * 0.62**2))
            tone = tone + 0.65 * (rng.random(n) < 0.45)[:, None, None] * spot
    elif kind.chromatin == "clumped":
        tone = 0.92 + 0.17 * noise
    chromatin = kind.stain * np.clip(tone, 0.25, 2.0) * cover
    return cover.astype(np.float32), chromatin.astype(np.float32)


def _paint_plasma_cytoplasm(
    rng: np.random.Generator, h: ScalarField, e: ScalarField, x: NDArray, y: NDArray, mpp: float
) -> None:
    """The purple cytoplasm beside each plasma cell's nucleus."""
    half = int(np.ceil(7.5 / mpp))
    at = np.arange(-half, half + 1, dtype=np.float32) * mpp
    body = 1 / (1 + np.exp((np.hypot(at[None, :] / 6.2, at[:, None] / 5.0) - 1) * 9))
    toward = rng.uniform(0, 2 * np.pi, len(x))
    column = np.rint((x + 2.4 * np.cos(toward)) / mpp).astype(int) - half
    row = np.rint((y + 2.4 * np.sin(toward)) / mpp).astype(int) - half
    for r, c in zip(row, column, strict=True):
        if r < 0 or c < 0 or r + len(at) > len(h) or c + len(at) > len(h):
            continue
        spot = np.s_[r : r + len(at), c : c + len(at)]
        h[spot] += body * (0.36 - h[spot])
        e[spot] += body * (0.50 - e[spot])

"""Cells of a synthetic section: position, type and direction of each nucleus, and its painting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tissue_layout import FloatArray, RingStructure, ScalarField, TissueLayout, make_smooth_noise


@dataclass(frozen=True)
class NucleusType:
    """One type of nucleus.

    Attributes
    ----------
    long_axis_um, short_axis_um : float
        Mean lengths of the axes.
    spread : float
        Standard deviation of the logarithm of the size.
    stain : float
        Amount of haematoxylin.
    chromatin : str
        "vesicular" (pale with rim and nucleolus), "clumped", "even", or "none" for a cell whose
        nucleus is outside the section plane.
    """

    name: str
    long_axis_um: float
    short_axis_um: float
    spread: float
    stain: float
    chromatin: str


NUCLEUS_TYPES = (
    NucleusType("tumour", 10.6, 8.3, 0.18, 1.60, "vesicular"),
    NucleusType("mitosis", 9.0, 3.6, 0.15, 1.9, "even"),
    NucleusType("epithelium", 8.2, 5.8, 0.08, 1.45, "vesicular"),
    NucleusType("myoepithelium", 8.5, 2.4, 0.12, 1.7, "even"),
    NucleusType("lymphocyte", 6.1, 5.6, 0.08, 1.95, "clumped"),
    NucleusType("plasma", 6.4, 6.0, 0.07, 1.8, "clumped"),
    NucleusType("fibroblast", 12.0, 2.0, 0.28, 1.7, "even"),
    NucleusType("endothelium", 8.5, 2.3, 0.12, 1.2, "even"),
    NucleusType("fat nucleus", 8.5, 1.9, 0.15, 1.2, "even"),
    NucleusType("debris", 2.6, 2.2, 0.35, 1.5, "even"),
    NucleusType("adipocyte", 60.0, 60.0, 0.1, 0.0, "none"),
)
TYPE_INDEX = {kind.name: i for i, kind in enumerate(NUCLEUS_TYPES)}
NECROSIS_DEPTH_UM = 62.0  # depth in a nest from which its cells are dead


@dataclass(frozen=True)
class CellArrays:
    """N cells.

    Attributes
    ----------
    x, y : (N,) array
        Centres in um.
    type_index : (N,) array
        Index in `NUCLEUS_TYPES`.
    angle : (N,) array
        Direction of the long axis in radians.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    type_index: NDArray[np.int8]
    angle: NDArray[np.float32]

    def rows_of_types(self, *names: str) -> NDArray[np.intp]:
        """Return the rows of the cells of these types."""
        return np.flatnonzero(np.isin(self.type_index, [TYPE_INDEX[n] for n in names]))


def place_cells(
    rng: np.random.Generator, layout: TissueLayout, along: tuple[ScalarField, ScalarField]
) -> CellArrays:
    """Fill the layout with cells; `along` is the fibre direction on the grid of the layout."""
    stroma = layout.clip_by_rings(np.minimum(-layout.nests, -layout.fat))
    parts = [
        _place_tumour_cells(rng, layout),
        *(_place_gland_cells(rng, ring) for ring in layout.glands),
        *(_place_vessel_cells(rng, ring) for ring in layout.vessels),
        _place_immune_cells(rng, layout, "lymphocyte", layout.lymphocytes, stroma, 7.4),
        _place_immune_cells(rng, layout, "plasma", layout.plasma, stroma, 10.5),
        _place_fibroblasts(rng, layout, stroma, along),
        _place_fat_cells(rng, layout),
    ]
    x, y, kind, angle = (np.concatenate(column) for column in zip(*parts, strict=True))
    inside = (layout.interpolate(layout.tissue, x, y) > 3) & _is_outside_fat(x, y, kind)
    return CellArrays(
        x[inside].astype(np.float32),
        y[inside].astype(np.float32),
        kind[inside].astype(np.int8),
        angle[inside].astype(np.float32),
    )


CellColumns = tuple[FloatArray, FloatArray, NDArray[np.int8], FloatArray]


def _cell_columns(name: str, x: FloatArray, y: FloatArray, angle: FloatArray) -> CellColumns:
    return x, y, np.full(len(x), TYPE_INDEX[name], np.int8), angle


def _jittered_hex_grid(
    rng: np.random.Generator, size_um: float, pitch: float, jitter: float
) -> tuple[FloatArray, FloatArray]:
    """A hexagonal grid of this pitch, each point moved by up to jitter times the pitch."""
    rows, columns = int(size_um / (0.866 * pitch)), int(size_um / pitch)
    row, column = np.mgrid[:rows, :columns]
    x = (column + 0.5 * (row % 2) + 0.25).ravel() * pitch
    y = (row + 0.5).ravel() * 0.866 * pitch
    move = rng.uniform(-jitter, jitter, (2, x.size)) * pitch
    return x + move[0], y + move[1]


def _push_apart(
    x: FloatArray, y: FloatArray, distance: float, rounds: int = 3
) -> tuple[FloatArray, FloatArray]:
    """Push points that are closer than this apart, a few times."""
    from scipy.spatial import cKDTree

    at = np.stack([x, y], 1)
    for _ in range(rounds):
        pairs = cKDTree(at).query_pairs(distance, output_type="ndarray")
        if not len(pairs):
            break
        gap = at[pairs[:, 0]] - at[pairs[:, 1]]
        length = np.hypot(*gap.T)[:, None] + 1e-6
        push = 0.5 * (distance - length) * gap / length
        np.add.at(at, pairs[:, 0], 0.8 * push)
        np.add.at(at, pairs[:, 1], -0.8 * push)
    return at[:, 0], at[:, 1]


def _place_tumour_cells(rng: np.random.Generator, layout: TissueLayout) -> CellColumns:
    x, y = _jittered_hex_grid(rng, layout.size_um, 11.6, 0.42)
    depth = layout.interpolate(layout.nests, x, y)
    keep = (depth > 3.5) & (rng.random(x.size) > 0.05)
    x, y = _push_apart(x[keep], y[keep], 9.6)
    depth = layout.interpolate(layout.nests, x, y)
    kind = np.full(x.size, TYPE_INDEX["tumour"], np.int8)
    kind[rng.random(x.size) < 0.012] = TYPE_INDEX["mitosis"]
    dead = depth > NECROSIS_DEPTH_UM + rng.normal(0, 5, x.size)
    kind[dead] = TYPE_INDEX["debris"]
    drop = dead & (rng.random(x.size) < 0.35)
    angle = rng.uniform(0, np.pi, x.size)
    return x[~drop], y[~drop], kind[~drop], angle[~drop]


def _place_gland_cells(rng: np.random.Generator, ring: RingStructure) -> CellColumns:
    """An epithelial layer of radial nuclei (two rows in ducts) on a myoepithelial one."""
    rows = [(0.45, "epithelium", 7.0)] if ring.wall < 12 else [
        (0.33, "epithelium", 7.4), (0.66, "epithelium", 8.2)]  # fmt: skip
    rows.append((0.07, "myoepithelium", 13.0))
    parts = []
    for depth, name, pitch in rows:
        radius = ring.radius - depth * ring.wall
        n = max(5, int(2 * np.pi * radius / pitch))
        phi = 2 * np.pi * (np.arange(n) + rng.uniform(-0.27, 0.27, n)) / n
        spread = 0.035 * ring.wall if name == "myoepithelium" else 0.10 * ring.wall
        share = (radius + rng.normal(0, spread, n)) / ring.radius
        x, y = ring.from_polar(phi, share)
        radial = np.arctan2(y - ring.y, x - ring.x) + rng.normal(0, 0.18, n)
        parts.append(_cell_columns(name, x, y, radial + (name == "myoepithelium") * np.pi / 2))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore


def _place_vessel_cells(rng: np.random.Generator, ring: RingStructure) -> CellColumns:
    """Flat endothelial nuclei along the lumen, and muscle nuclei in a thick wall."""
    parts = []
    for depth, pitch in ((0.85, 15.0), (0.35, 13.0)) if ring.wall > 4 else ((0.6, 15.0),):
        radius = ring.radius - depth * ring.wall
        n = max(3, int(2 * np.pi * radius / pitch))
        phi = 2 * np.pi * (np.arange(n) + rng.uniform(-0.4, 0.4, n)) / n
        x, y = ring.from_polar(phi, np.full(n, radius / ring.radius))
        tangent = np.arctan2(y - ring.y, x - ring.x) + np.pi / 2
        parts.append(_cell_columns("endothelium", x, y, tangent))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore


def _place_immune_cells(
    rng: np.random.Generator,
    layout: TissueLayout,
    name: str,
    cover: ScalarField,
    stroma: ScalarField,
    pitch: float,
) -> CellColumns:
    x, y = _jittered_hex_grid(rng, layout.size_um, pitch, 0.42)
    chance = layout.interpolate(cover, x, y)
    # A few lymphocytes enter nests; none are in a lumen or in fat cells.
    chance = np.where(layout.interpolate(stroma, x, y) > 4, chance, 0.0)
    nest = layout.interpolate(layout.nests, x, y)
    near = layout.interpolate(cover, x, y)
    chance = np.where((nest > 0) & (nest < 40), 0.10 * near, chance)
    keep = rng.random(x.size) < chance
    x, y = _push_apart(x[keep], y[keep], 0.83 * pitch, 2)
    return _cell_columns(name, x, y, rng.uniform(0, np.pi, x.size))


def _place_fibroblasts(
    rng: np.random.Generator,
    layout: TissueLayout,
    stroma: ScalarField,
    along: tuple[ScalarField, ScalarField],
) -> CellColumns:
    x, y = _jittered_hex_grid(rng, layout.size_um, 15.0, 0.5)
    loose = layout.interpolate(layout.looseness, x, y)
    near_tumour = np.exp(-np.clip(-layout.interpolate(layout.tumour, x, y), 0, None) / 80)
    chance = 0.20 + 0.26 * loose + 0.14 * near_tumour
    chance *= layout.interpolate(stroma, x, y) > 5
    chance *= layout.interpolate(layout.lymphocytes, x, y) < 0.6
    keep = rng.random(x.size) < chance
    x, y = x[keep], y[keep]
    angle = np.arctan2(layout.interpolate(along[1], x, y), layout.interpolate(along[0], x, y))
    return _cell_columns("fibroblast", x, y, angle + rng.normal(0, 0.15, x.size))


def _is_outside_fat(x: FloatArray, y: FloatArray, kind: FloatArray) -> NDArray[np.bool_]:
    """False for stroma cells inside an adipocyte."""
    from scipy.spatial import cKDTree

    fat = kind == TYPE_INDEX["adipocyte"]
    if not fat.any():
        return np.ones(len(x), bool)
    away, _ = cKDTree(np.stack([x[fat], y[fat]], 1)).query(np.stack([x, y], 1))
    return fat | (kind == TYPE_INDEX["fat nucleus"]) | (away > 38)


def _place_fat_cells(rng: np.random.Generator, layout: TissueLayout) -> CellColumns:
    """Adipocyte centres, and a flat nucleus squeezed between some neighbours."""
    from scipy.spatial import cKDTree

    x, y = _jittered_hex_grid(rng, layout.size_um, 58.0, 0.30)
    keep = (layout.interpolate(layout.fat, x, y) > 8) & (
        layout.interpolate(layout.tissue, x, y) > 12
    )
    x, y = _push_apart(x[keep], y[keep], 50, 2)
    cells = _cell_columns("adipocyte", x, y, np.zeros(x.size))
    if x.size < 4:
        return cells
    at = np.stack([x, y], 1)
    rows = np.arange(x.size)
    near = cKDTree(at).query(at, k=3)[1][rows, 1 + rows % 2]
    use = rng.random(x.size) < 0.5
    gap = at[near][use] - at[use]
    middle = at[use] + 0.5 * gap + rng.normal(0, 0.5, gap.shape)
    across = np.arctan2(gap[:, 1], gap[:, 0]) + np.pi / 2
    nuclei = _cell_columns("fat nucleus", middle[:, 0], middle[:, 1], across)
    return tuple(np.concatenate(column) for column in zip(cells, nuclei, strict=True))  # type: ignore


N_ORIENTATIONS = 32  # directions a shape is drawn in, over half a turn
N_SHAPES = 8  # different shapes per direction


def paint_nuclei(
    rng: np.random.Generator, h: ScalarField, e: ScalarField, cells: CellArrays, mpp: float
) -> None:
    """Paint every nucleus into the stain maps, in place.

    A nucleus displaces the eosin under it. Plasma cells get their eccentric cytoplasm.

    Parameters
    ----------
    h, e : (size, size) arrays
        Haematoxylin and eosin.
    mpp : float
        um per px of both.
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
    """Cover (0..1) and haematoxylin of n = N_ORIENTATIONS * N_SHAPES nuclei, (n, size, size)."""
    n = N_ORIENTATIONS * N_SHAPES
    half = int(np.ceil(0.62 * kind.long_axis_um * np.exp(2 * kind.spread) / mpp)) + 2
    at = np.arange(-half, half + 1, dtype=np.float32) * mpp
    angle = (np.repeat(np.arange(N_ORIENTATIONS), N_SHAPES) / N_ORIENTATIONS * np.pi)[:, None, None]
    u = np.cos(angle) * at[None, None, :] + np.sin(angle) * at[None, :, None]
    v = np.cos(angle) * at[None, :, None] - np.sin(angle) * at[None, None, :]

    def each(mean: float, spread: float) -> FloatArray:
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
    tone: FloatArray | float = 1.0 + 0.06 * noise
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
    rng: np.random.Generator,
    h: ScalarField,
    e: ScalarField,
    x: FloatArray,
    y: FloatArray,
    mpp: float,
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

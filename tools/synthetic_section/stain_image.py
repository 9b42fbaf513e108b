"""Stain maps of a synthetic section and the RGB image made from them.

Haematoxylin and eosin amounts of everything but nuclei are painted at half resolution; the
Beer-Lambert law turns stain into light, with stain strength, hue, blur and noise per section.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cell_nuclei import NECROSIS_DEPTH_UM, CellArrays
from .tissue_layout import (
    GRID_PITCH_UM,
    FloatArray,
    RingStructure,
    ScalarField,
    TissueLayout,
    make_fibre_texture,
    make_smooth_noise,
)


def paint_background(
    rng: np.random.Generator,
    layout: TissueLayout,
    cells: CellArrays,
    along: tuple[ScalarField, ScalarField],
    pixels: int,
) -> tuple[ScalarField, ScalarField]:
    """Return haematoxylin and eosin without nuclei, both (pixels, pixels) float32."""
    pitch = layout.size_um / pixels
    shape = (pixels, pixels)

    def big(field: ScalarField) -> ScalarField:
        return upsample(field, pixels)

    nests = big(layout.nests)
    fibrils, bundles = make_fibre_texture(rng, big(along[0]), big(along[1]), pitch)
    grain = make_smooth_noise(rng, shape, 0.8 / pitch)
    mottle = big(make_smooth_noise(rng, layout.tissue.shape, 13 / GRID_PITCH_UM))
    h, e = _paint_stroma(big(layout.looseness), big(layout.lymphocytes), mottle, fibrils, bundles)

    # Shrinkage clefts along parts of a nest's border.
    patchy = big(make_smooth_noise(rng, layout.tissue.shape, 30 / GRID_PITCH_UM))
    cleft = (
        smoothstep(nests, -5.5, -3.0) * smoothstep(-nests, -0.5, 1.5) * smoothstep(patchy, 0.3, 0.9)
    )
    e *= 1 - 0.9 * cleft
    h *= 1 - 0.9 * cleft

    owner, away = _assign_nearest_cell(rng, layout, cells, pixels)
    _paint_nests(rng, h, e, nests, owner, cells, grain)
    edge = big(layout.tissue) + 2.2 * np.clip(bundles, -2, 2)
    tissue = smoothstep(edge, 0.0, 2.5)
    h *= tissue
    e *= tissue
    _paint_fat(rng, h, e, owner, away, cells, pitch, fibrils)  # whole cells, also at the edge
    for ring in layout.vessels:
        _paint_vessel(rng, h, e, ring, pitch)
    for ring in layout.glands:
        _paint_gland(rng, h, e, ring, pitch)
    return h, e


def smoothstep(value: FloatArray, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """Return 0 below low, 1 above high, and a smooth step between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def upsample(field: ScalarField, pixels: int) -> ScalarField:
    """Return a square field at a finer pitch, linear between its points."""
    n = len(field)
    at = (np.arange(pixels, dtype=np.float32) + 0.5) * (n / pixels) - 0.5
    at = np.clip(at, 0, n - 1)
    low = np.minimum(at.astype(np.intp), n - 2)
    share = (at - low).astype(np.float32)
    wide = field[:, low] * (1 - share) + field[:, low + 1] * share
    out = np.empty((pixels, pixels), np.float32)
    for top in range(0, pixels, 128):  # in bands that fit in the processor's cache
        rows = slice(top, top + 128)
        below = wide[low[rows] + 1]
        above = wide[low[rows]]
        out[rows] = above + share[rows, None] * (below - above)
    return out


def _paint_stroma(
    loose: ScalarField,
    immune: ScalarField,
    mottle: ScalarField,
    fibrils: ScalarField,
    bundles: ScalarField,
) -> tuple[ScalarField, ScalarField]:
    thick = np.clip(bundles, -1.2, 1.6)
    e = 0.70 - 0.26 * loose + 0.12 * fibrils + 0.19 * thick + 0.11 * mottle
    # Clefts open between bundles: narrow in dense collagen, wide in loose.
    open_ = smoothstep(-bundles - 0.10 * fibrils, 1.45 - 0.95 * loose, 1.85 - 0.9 * loose)
    e *= 1 - 0.95 * open_
    h = (0.05 + 0.07 * loose + 0.02 * fibrils + 0.12 * np.clip(immune, 0, 1)) * (1 - 0.8 * open_)
    return np.clip(h, 0, None), np.clip(e, 0.01, None)


def _assign_nearest_cell(
    rng: np.random.Generator, layout: TissueLayout, cells: CellArrays, pixels: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each pixel the nearest tumour cell or adipocyte (row in cells), and its distance, um."""
    from scipy.ndimage import distance_transform_edt

    pitch = layout.size_um / pixels
    rows = cells.rows_of_types("tumour", "mitosis", "debris", "adipocyte")
    owner = np.zeros((pixels, pixels), np.int32)
    if not len(rows):
        return owner, np.full(owner.shape, 1e4, np.float32)
    column = np.clip(cells.x[rows] / pitch, 0, pixels - 1).astype(int)
    row = np.clip(cells.y[rows] / pitch, 0, pixels - 1).astype(int)
    empty = np.ones((pixels, pixels), bool)
    empty[row, column] = False
    owner[row, column] = rows
    away, near = distance_transform_edt(empty, return_indices=True)
    owner = owner[near[0], near[1]]
    # Cell borders are not ruler-straight: each pixel takes the owner of a pixel nearby.
    at = np.arange(pixels, dtype=np.float32)
    sideways, down = (
        upsample(
            2.6 / pitch * make_smooth_noise(rng, layout.tissue.shape, 9 / GRID_PITCH_UM), pixels
        )
        for _ in range(2)
    )
    column = np.clip(np.rint(at[None, :] + sideways), 0, pixels - 1).astype(np.int32)
    row = np.clip(np.rint(at[:, None] + down), 0, pixels - 1).astype(np.int32)
    index = row * np.int32(pixels) + column
    return owner.ravel().take(index), (away * pitch).astype(np.float32).ravel().take(index)


def _cell_borders(owner: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour belongs to another cell."""
    border = np.zeros(owner.shape, bool)
    border[:, :-1] |= owner[:, 1:] != owner[:, :-1]
    border[:-1] |= owner[1:] != owner[:-1]
    return border


def _paint_nests(
    rng: np.random.Generator,
    h: ScalarField,
    e: ScalarField,
    nests: ScalarField,
    owner: NDArray[np.int32],
    cells: CellArrays,
    grain: ScalarField,
) -> None:
    """Amphophilic cytoplasm that differs from cell to cell; deep inside, pink debris."""
    inside = smoothstep(nests, -1.0, 1.0)
    shade = rng.normal(0, 1, len(cells.x)).astype(np.float32)
    tone = np.clip(shade, -2, 2)[owner] if len(shade) else np.zeros_like(h)
    line = _cell_borders(owner)
    cyto_e = 0.50 + 0.10 * tone + 0.06 * grain - 0.15 * line
    cyto_h = 0.30 + 0.08 * tone + 0.05 * grain - 0.09 * line
    dead = smoothstep(nests + 5 * grain, NECROSIS_DEPTH_UM, NECROSIS_DEPTH_UM + 12)
    cyto_e += dead * (0.30 + 0.12 * grain)
    cyto_h += dead * (0.06 * grain - 0.12)
    e += inside * (cyto_e - e)
    h += inside * (cyto_h - h)


def _paint_fat(
    rng: np.random.Generator,
    h: ScalarField,
    e: ScalarField,
    owner: NDArray[np.int32],
    away: ScalarField,
    cells: CellArrays,
    pitch: float,
    fibrils: ScalarField,
) -> None:
    """Empty round cells with thin pink walls, in place of the stroma they displace."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    is_fat = np.zeros(max(len(cells.x), 1), bool)
    fat_rows = cells.rows_of_types("adipocyte")
    if not len(fat_rows):
        return
    is_fat[fat_rows] = True
    reach = np.full(len(cells.x), 0, np.float32)
    reach[fat_rows] = rng.uniform(33, 40, len(fat_rows))
    inside = is_fat[owner] & (away < reach[owner])
    depth = distance_transform_edt(inside & ~_cell_borders(np.where(inside, owner, -1))) * pitch
    lumen = gaussian_filter((depth > 1.6).astype(np.float32), 3.2 / pitch)
    empty = smoothstep(lumen, 0.50, 0.62)
    wall = smoothstep(gaussian_filter(inside.astype(np.float32), 1.0 / pitch), 0.3, 0.7)
    pale = 0.60 + 0.08 * fibrils
    e += wall * (pale - e)
    h += wall * (0.06 - h)
    e *= 1 - 0.985 * empty
    h *= 1 - 0.985 * empty


def _ring_window(
    ring: RingStructure, pixels: int, pitch: float, margin: float
) -> tuple[slice, slice]:
    reach = 1.6 * ring.radius + margin
    at = [
        slice(max(0, int((c - reach) / pitch)), min(pixels, int((c + reach) / pitch) + 1))
        for c in (ring.y, ring.x)
    ]
    return at[0], at[1]


def _ring_depth(
    ring: RingStructure, at: tuple[slice, slice], pitch: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distance inwards from the outline in um, and the window's own coordinates in um."""
    y = (np.arange(at[0].start, at[0].stop)[:, None] + 0.5) * pitch
    x = (np.arange(at[1].start, at[1].stop)[None, :] + 0.5) * pitch
    share, _ = ring.to_polar(x, y)
    return (
        (1 - share) * ring.radius,
        np.broadcast_to(x, share.shape),
        np.broadcast_to(y, share.shape),
    )


def _blend(
    canvas: ScalarField, at: tuple[slice, slice], weight: FloatArray, value: FloatArray | float
) -> None:
    canvas[at] += (weight * (value - canvas[at])).astype(np.float32)


def _paint_gland(
    rng: np.random.Generator, h: ScalarField, e: ScalarField, ring: RingStructure, pitch: float
) -> None:
    at = _ring_window(ring, len(h), pitch, 6)
    depth, _, _ = _ring_depth(ring, at, pitch)
    grain = make_smooth_noise(rng, depth.shape, 0.9 / pitch)
    ragged = make_smooth_noise(rng, depth.shape, 2.5 / pitch)
    membrane = smoothstep(depth, -2.6, -1.0) * smoothstep(-depth, -0.8, 0.6)
    _blend(e, at, 0.8 * membrane, 0.80)
    body = smoothstep(depth, -0.8, 0.6)
    apical = smoothstep(depth, 0.72 * ring.wall, ring.wall)
    _blend(e, at, body, 0.40 + 0.17 * apical + 0.05 * grain)
    _blend(h, at, body, 0.24 + 0.05 * apical + 0.04 * grain)
    lumen = smoothstep(depth + 0.8 * ragged, ring.wall, ring.wall + 1.6)
    _blend(e, at, lumen, 0.015)
    _blend(h, at, lumen, 0.005)
    if rng.random() < 0.45:  # secretion, shrunk away from the epithelium
        gap = ring.wall + rng.uniform(1, 5)
        secretion = smoothstep(depth + 1.5 * ragged, gap, gap + 2)
        _blend(e, at, secretion, rng.uniform(0.15, 0.5) + 0.04 * grain)


def _paint_vessel(
    rng: np.random.Generator, h: ScalarField, e: ScalarField, ring: RingStructure, pitch: float
) -> None:
    at = _ring_window(ring, len(h), pitch, 6)
    depth, x, y = _ring_depth(ring, at, pitch)
    layered = np.sin(depth * 2.1 + 2 * make_smooth_noise(rng, depth.shape, 5 / pitch))
    wall = smoothstep(depth, -1.0, 0.6)
    _blend(e, at, wall, 0.62 + 0.10 * layered)
    _blend(h, at, wall, 0.12 + 0.02 * layered)
    lumen = smoothstep(depth, ring.wall, ring.wall + 1.2)
    _blend(e, at, lumen, 0.03)
    _blend(h, at, lumen, 0.01)
    if rng.random() < 0.6:  # red cells
        from scipy.spatial import cKDTree

        side = np.arange(-1.3 * ring.radius, 1.3 * ring.radius, 6.4)
        red = np.stack(np.meshgrid(side + ring.x, side + ring.y), -1).reshape(-1, 2)
        red += rng.normal(0, 1.4, red.shape)
        red = red[rng.random(len(red)) < rng.uniform(0.3, 0.95)]
        if len(red):
            away = cKDTree(red).query(np.stack([x, y], -1).reshape(-1, 2))[0].reshape(depth.shape)
            disc = smoothstep(-away, -3.3, -2.5) * smoothstep(depth, ring.wall, ring.wall + 2.5)
            _blend(e, at, disc, 1.45 - 0.3 * smoothstep(-away, -2.0, -0.5))


# Optical density per unit of stain in red, green, blue: typical values after Macenko et al. 2009.
HAEMATOXYLIN = (0.61, 0.76, 0.36)
EOSIN = (0.12, 0.78, 0.48)


@dataclass(frozen=True)
class Staining:
    """Stain and scan of one section.

    Attributes
    ----------
    h_strength, e_strength : float
        Factors of the stain amounts.
    h_colour, e_colour : tuple of float
        Optical density per unit of stain in red, green and blue.
    glass : tuple of float
        Colour of the empty slide, 0..255.
    blur_px : float
        Standard deviation of the blur.
    noise : float
        Standard deviation in grey levels.
    """

    h_strength: float
    e_strength: float
    h_colour: tuple[float, float, float]
    e_colour: tuple[float, float, float]
    glass: tuple[float, float, float]
    blur_px: float
    noise: float


def draw_staining(rng: np.random.Generator) -> Staining:
    """Draw a random staining: strengths vary by about 12 %, hues by a few percent."""

    def hue(colour: tuple[float, float, float]) -> tuple[float, float, float]:
        r, g, b = (c + rng.normal(0, 0.018) for c in colour)
        return r, g, b

    grey = rng.uniform(240, 246)
    return Staining(
        float(np.exp(rng.normal(0, 0.12))),
        float(np.exp(rng.normal(0, 0.12))),
        hue(HAEMATOXYLIN),
        hue(EOSIN),
        (grey, grey - rng.uniform(0, 2.5), grey + rng.uniform(-1, 1.5)),
        rng.uniform(0.55, 0.8),
        rng.uniform(1.2, 2.0),
    )


def render_rgb(
    rng: np.random.Generator, h: ScalarField, e: ScalarField, staining: Staining
) -> NDArray[np.uint8]:
    """Return the image (height, width, 3) of stain maps; bands limit the use of memory."""
    from scipy.ndimage import gaussian_filter

    height, width = h.shape
    image = np.empty((height, width, 3), np.uint8)
    halo = 4
    # Uneven light over the field, a percent or so.
    across = np.linspace(-1, 1, width, dtype=np.float32)
    for top in range(0, height, 512):
        stop = min(height, top + 512)
        low, high = max(0, top - halo), min(height, stop + halo)
        inner = slice(top - low, stop - low)
        band_h = gaussian_filter(h[low:high], staining.blur_px)[inner] * staining.h_strength
        band_e = gaussian_filter(e[low:high], staining.blur_px)[inner] * staining.e_strength
        down = np.linspace(-1, 1, height, dtype=np.float32)[top:stop, None]
        light = 1 - 0.008 * (across**2 + down**2)
        grain = rng.standard_normal(band_h.shape, dtype=np.float32) * staining.noise
        for channel in range(3):
            density = staining.h_colour[channel] * band_h + staining.e_colour[channel] * band_e
            value = staining.glass[channel] * light * np.exp(-density)
            value += grain + 0.5 * np.roll(grain, 7 * (channel + 1), axis=1)
            image[top:stop, :, channel] = np.clip(value + 0.5, 0, 255).astype(np.uint8)
    return image

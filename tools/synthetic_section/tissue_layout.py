"""Layout of a synthetic section: compartments, glands, vessels, and direction of the fibres.

All coordinates are in um on a coarse square grid (GRID_PITCH_UM). A compartment is a signed
distance field, positive inside. Fibres follow the level lines of a smooth potential; their texture
is a line integral convolution of noise along that direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID_PITCH_UM = 8.0
ScalarField = NDArray[np.float32]
FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class RingStructure:
    """A round structure with a wall: gland, duct or vessel.

    Attributes
    ----------
    x, y, radius, wall : float
        Centre, outer radius and wall thickness in um.
    stretch, angle : float
        Axis ratio and direction of the ellipse.
    wobble : tuple
        (amplitude, phase) of the harmonics 2, 3, 4 and 5 of the outline.
    """

    x: float
    y: float
    radius: float
    wall: float
    stretch: float
    angle: float
    wobble: tuple[tuple[float, float], ...]

    def to_polar(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the distance from the centre as a share of the local radius, and the direction."""
        dx, dy = x - self.x, y - self.y
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = (cos * dx + sin * dy) / self.stretch, (cos * dy - sin * dx) * self.stretch
        phi = np.arctan2(v, u)
        return np.hypot(u, v) / self.outer_radius(phi), phi

    def outer_radius(self, phi: FloatArray) -> FloatArray:
        """Return the outer radius in um in the directions phi, before the ellipse is applied."""
        radius = np.ones_like(phi)
        for k, (amount, phase) in enumerate(self.wobble, start=2):
            radius = radius + amount * np.cos(k * phi + phase)
        return self.radius * radius

    def from_polar(self, phi: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the position at a direction and share of the radius (inverse of `to_polar`)."""
        r = self.outer_radius(phi) * share
        u, v = r * np.cos(phi) * self.stretch, r * np.sin(phi) / self.stretch
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.x + cos * u - sin * v, self.y + sin * u + cos * v


@dataclass(frozen=True)
class TissueLayout:
    """The plan of a section of `size_um` x `size_um`.

    Attributes
    ----------
    tissue, tumour, nests, fat : (n, n) arrays
        Signed distances in um, positive inside. Nests are the tumour cell islands, tumour is
        the compartment that contains them.
    lymphocytes, plasma : (n, n) arrays
        Share of the area covered by these cells, 0..1.
    looseness : (n, n) array
        From 0, dense collagen, to 1, loose and pale stroma.
    """

    size_um: float
    tissue: ScalarField
    tumour: ScalarField
    nests: ScalarField
    fat: ScalarField
    lymphocytes: ScalarField
    plasma: ScalarField
    looseness: ScalarField
    glands: tuple[RingStructure, ...]
    vessels: tuple[RingStructure, ...]

    def interpolate(self, field: ScalarField, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return a field at positions in um, linear between grid points."""
        from scipy.ndimage import map_coordinates

        at = np.stack([np.asarray(y), np.asarray(x)]) / GRID_PITCH_UM - 0.5
        return map_coordinates(field, at, order=1, mode="nearest")

    def clip_by_rings(self, field: ScalarField) -> ScalarField:
        """Return `field` or, where smaller, the distance in um to the nearest gland or vessel."""
        out = field.copy()
        for ring in self.glands + self.vessels:
            at, away = _distance_near_ring(ring, len(field), 160)
            np.minimum(out[at], away, out=out[at])
        return out


def make_smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float
) -> ScalarField:
    """Return Gaussian-filtered noise, mean 0 and standard deviation 1; sigma in px."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, mode="reflect", truncate=3
    )
    return (noise - noise.mean()) / (noise.std() + 1e-9)


def draw_layout(rng: np.random.Generator, size_um: float) -> TissueLayout:
    """Draw the plan of one section: outline, compartments, glands, vessels, immune cells."""
    n = round(size_um / GRID_PITCH_UM)
    x, y = _grid_coordinates(n)

    def noise(scale_um: float) -> ScalarField:
        return make_smooth_noise(rng, (n, n), scale_um / GRID_PITCH_UM)

    middle = size_um / 2
    angle = np.arctan2(y - middle, x - middle)
    lobes = np.cos(rng.integers(2, 5) * angle + rng.uniform(0, 6))
    outline = 0.45 + 0.018 * lobes + 0.022 * noise(180) + 0.010 * noise(50)
    outline = np.minimum(outline, 0.478)
    squircle = ((np.abs(x - middle) ** 3 + np.abs(y - middle) ** 3) ** (1 / 3)) / size_um
    tissue = _signed_distance(squircle < outline)

    start = rng.uniform(0, 2 * np.pi)
    turn = rng.choice([-1, 1])
    reach = {"tumour": 0.40, "glands": 0.29, "fat": 0.27}
    fields = {}
    for i, (kind, radius) in enumerate(reach.items()):
        # Fat is at the outline, tumour and lobule further in.
        out = {"tumour": 0.20, "glands": 0.26, "fat": 0.38}[kind] * size_um
        theta = start + turn * (2 * np.pi * i / 3 + rng.normal(0, 0.12))
        away = np.hypot(x - middle - out * np.cos(theta), y - middle - out * np.sin(theta))
        fields[kind] = (radius * size_um - away) + 75 * noise(110) + 28 * noise(35)
    best = np.maximum.reduce(list(fields.values()))
    tumour = _signed_distance((fields["tumour"] > 0) & (fields["tumour"] == best) & (tissue > 0))
    septa = np.abs(noise(75)) < 0.14  # strands of collagen divide the fat into lobules
    fat = _signed_distance((fields["fat"] > 25) & (fields["fat"] == best) & (tumour < -40) & ~septa)

    islands = noise(34) + 0.35 * noise(16) + 0.3 * noise(120)
    nests = _signed_distance((islands > 0.12) & (tumour + 18 * noise(20) > 15) & (tissue > 25))
    nests += 3.5 * noise(13)

    bare = TissueLayout(size_um, tissue, tumour, nests, fat, *(np.zeros_like(tissue),) * 3, (), ())
    room = np.minimum.reduce([tissue - 25, -nests - 30, -fat - 20])
    glands = _place_glands(rng, bare, np.minimum(room, fields["glands"] + 60))
    with_glands = TissueLayout(
        size_um, tissue, tumour, nests, fat, *(np.zeros_like(tissue),) * 3, glands, ()
    )
    vessels = _place_vessels(rng, with_glands, with_glands.clip_by_rings(room))

    front = np.exp(-((tumour / 110) ** 2)) * (0.45 + 0.55 * (noise(60) > 0.3))
    lymphocytes = 0.85 * front * np.clip(noise(38) - 0.25, 0, 1.3)
    for _ in range(max(2, round(size_um / 600))):
        at = rng.uniform(0.2, 0.8, 2) * size_um
        if (
            bare.interpolate(fat, *at[:, None])[0] < -60
            and bare.interpolate(nests, *at[:, None])[0] < -10
        ):
            radius = rng.uniform(45, 105)
            away = np.hypot(x - at[0], y - at[1]) + 14 * noise(30)
            lymphocytes = np.maximum(lymphocytes, 1 / (1 + np.exp((away - radius) / 9)))
    for ring in glands:  # a few lymphocytes around normal glands
        part, gap = _distance_near_ring(ring, n, 40)
        lymphocytes[part] = np.maximum(lymphocytes[part], 0.07 * (gap < 30))
    plasma = np.exp(-((tumour / 150) ** 2)) * np.clip(noise(50) - 0.9, 0, 1)
    looseness = 1 / (1 + np.exp(-1.6 * noise(95)))
    near_gland = np.zeros_like(tissue)
    for ring in glands:
        part, gap = _distance_near_ring(ring, n, 120)
        near_gland[part] = np.maximum(near_gland[part], np.exp(-np.clip(gap, 0, None) / 25))
    looseness = np.maximum(looseness, 0.9 * near_gland)
    return TissueLayout(
        size_um, tissue, tumour, nests, fat, np.clip(lymphocytes, 0.012, 1), np.clip(plasma, 0, 1),
        looseness.astype(np.float32), glands, vessels,
    )  # fmt: skip


def _place_glands(
    rng: np.random.Generator, plan: TissueLayout, room: ScalarField
) -> tuple[RingStructure, ...]:
    """Lobules of small packed acini, and larger ducts, where there is room for them."""
    rings: list[RingStructure] = []
    scale = plan.size_um / 2304
    lobules = [_choose_free_position(rng, room) for _ in range(round(5 * scale))]
    for at in lobules:
        for _ in range(90):
            spot = at + rng.normal(0, 75, 2)
            _try_ring(rng, plan, room, rings, spot, rng.uniform(14, 25), (8.5, 10.5), 4)
    for _ in range(round(60 * scale)):
        spot = _choose_free_position(rng, room)
        _try_ring(rng, plan, room, rings, spot, rng.uniform(38, 85), (13, 22), 18)
    return tuple(rings)


def _place_vessels(
    rng: np.random.Generator, plan: TissueLayout, room: ScalarField
) -> tuple[RingStructure, ...]:
    rings: list[RingStructure] = []
    for _ in range(round(60 * plan.size_um / 2304)):
        spot = _choose_free_position(rng, room)
        radius = rng.choice([7, 9, 12, 18, 30]) * rng.uniform(0.9, 1.2)
        wall = 2.2 + (0.32 * radius if rng.random() < 0.4 else 0)
        _try_ring(rng, plan, room, rings, spot, radius, (wall, wall), 14)
    return tuple(rings)


def _try_ring(
    rng: np.random.Generator,
    plan: TissueLayout,
    room: ScalarField,
    rings: list[RingStructure],
    at: FloatArray,
    radius: float,
    wall: tuple[float, float],
    gap: float,
) -> None:
    """Add a ring here unless it would touch something."""
    if plan.interpolate(room, *np.reshape(at, (2, 1)))[0] < 1.12 * radius:
        return
    if any(np.hypot(at[0] - r.x, at[1] - r.y) < 1.12 * (radius + r.radius) + gap for r in rings):
        return
    wobble = tuple(
        (rng.uniform(0, share), rng.uniform(0, 2 * np.pi)) for share in (0.06, 0.09, 0.06, 0.045)
    )
    stretch, angle = rng.uniform(1.0, 1.18), rng.uniform(0, np.pi)
    rings.append(
        RingStructure(
            float(at[0]), float(at[1]), radius, rng.uniform(*wall), stretch, angle, wobble
        )
    )


def _choose_free_position(rng: np.random.Generator, room: ScalarField) -> FloatArray:
    """A random position in um away from all structures; a corner if there is none."""
    free = np.flatnonzero(room > 20)
    if not len(free):
        return np.zeros(2)
    row, column = np.unravel_index(rng.choice(free), room.shape)
    return (np.array([column, row]) + 0.5) * GRID_PITCH_UM


def _grid_coordinates(n: int) -> tuple[FloatArray, FloatArray]:
    at = (np.arange(n, dtype=np.float32) + 0.5) * GRID_PITCH_UM
    return at[None, :].repeat(n, 0), at[:, None].repeat(n, 1)


def _distance_near_ring(
    ring: RingStructure, n: int, margin: float
) -> tuple[tuple[slice, slice], FloatArray]:
    """The part of the grid near a ring, and there the distance outwards from it in um."""
    reach = 1.6 * ring.radius + margin
    low = [max(0, int((c - reach) / GRID_PITCH_UM)) for c in (ring.y, ring.x)]
    high = [min(n, int((c + reach) / GRID_PITCH_UM) + 1) for c in (ring.y, ring.x)]
    rows, columns = (
        (np.arange(a, b) + 0.5) * GRID_PITCH_UM for a, b in zip(low, high, strict=True)
    )
    share, _ = ring.to_polar(columns[None, :], rows[:, None])
    return (slice(low[0], high[0]), slice(low[1], high[1])), (share - 1) * ring.radius


def _signed_distance(mask: NDArray[np.bool_]) -> ScalarField:
    """Signed distance to the mask's border in um; far outside everywhere if it is empty."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if not mask.any():
        return np.full(mask.shape, -1e4, np.float32)
    signed = distance_transform_edt(mask) - distance_transform_edt(~mask)
    return gaussian_filter(signed * GRID_PITCH_UM, 0.6).astype(np.float32)


def compute_fibre_direction(
    rng: np.random.Generator, layout: TissueLayout
) -> tuple[ScalarField, ScalarField]:
    """Return the unit vector (x, y) along the fibres on the grid of the layout."""
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
    """Return textures of fibrils and bundles, each with mean 0 and standard deviation 1.

    Fibrils are about 1 um wide, bundles about 5 um.

    Parameters
    ----------
    dx, dy : (n, n) arrays
        Direction of the fibres.
    pitch : float
        um per px of both.
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

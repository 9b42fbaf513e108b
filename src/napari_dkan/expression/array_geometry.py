"""Spot arrays: pixel size from an array of known pitch, array coordinates from a lattice."""

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
    array: NDArray[np.floating],
    pixels: NDArray[np.floating],
    pitch_um: float,
    cell_area: float = 1.0,
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
    if spots.array_coords is None or not spots.pitch_um or len(spots) < 4:
        return None
    parity = spots.array_coords.sum(axis=1) % 2
    hexagonal = len(spots) > 20 and bool((parity == parity[0]).all())
    try:
        return fit_mpp(
            spots.array_coords.astype(float),
            spots.xy,
            spots.pitch_um,
            _HEX_CELL_AREA if hexagonal else 1.0,
        )
    except SpotsError:
        return None


_MIN_SPOTS = 16
_NEIGHBOUR_RADIUS = 1.25  # times the nearest distance: nearer than a square's diagonal
_MIN_ALIGNMENT = 0.85  # length of the mean direction; 1 on an exact lattice, near 0 for cells
_MAX_RESIDUAL = 0.3  # of a pitch; half a pitch would be another place


def array_coords_from_lattice(xy: NDArray[np.floating]) -> NDArray[np.int64] | None:
    """(N, 2) integer array coordinates, x first, of spots on a square or hexagonal lattice.

    xy : (N, 2) spot centres in px, in any order; gaps and islands are allowed.

    None when the positions are not a lattice: too few, in one line, irregular, or two spots on
    one place. The first axis is the lattice direction nearest to the image's x. A hexagonal
    lattice gets Visium's coordinates, in which neighbours in a row are two columns apart and the
    row and column of every spot add up to an even number.
    """
    from scipy.spatial import cKDTree

    xy = np.asarray(xy, dtype=float)
    if len(xy) < _MIN_SPOTS or not np.isfinite(xy).all():
        return None
    tree = cKDTree(xy)
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    if pitch <= 0:
        return None
    pairs = tree.query_pairs(_NEIGHBOUR_RADIUS * pitch, output_type="ndarray")
    if not 0 < len(pairs) <= 8 * len(xy):
        return None
    steps = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    # directions repeat every quarter turn on a square lattice, every sixth on a hexagonal one
    fold, mean = max(
        ((n, np.exp(1j * n * angles).mean()) for n in (4, 6)), key=lambda one: abs(one[1])
    )
    if abs(mean) < _MIN_ALIGNMENT:
        return None
    pitch = float(np.median(np.linalg.norm(steps, axis=1)))
    cell = _nearest_cells(steps, _lattice_basis(np.angle(mean) / fold, pitch, fold), fold)
    walked = _traverse_lattice(len(xy), pairs, cell)
    array = _fit_lattice(xy, walked, pitch, fold)
    if array is None or len(np.unique(array, axis=0)) < len(array):
        return None
    shift = array.min(axis=0)
    return array - shift + ([0, int(shift.sum() % 2)] if fold == 6 else 0)


def _lattice_basis(angle: float, pitch: float, fold: int) -> NDArray[np.float64]:
    """(2, 2) px of one step along the columns and along the rows."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    if fold == 4:
        return np.stack([along, across]) * pitch
    return np.stack([along / 2, across * np.sqrt(3) / 2]) * pitch


def _nearest_cells(offsets: NDArray, basis: NDArray, fold: int) -> NDArray[np.int64]:
    """The lattice cell nearest to each offset from a cell."""
    exact = offsets @ np.linalg.inv(basis)
    if fold == 4:
        return np.rint(exact).astype(np.int64)
    rows = np.rint(exact[:, 1])
    odd = rows % 2
    return np.column_stack([2 * np.rint((exact[:, 0] - odd) / 2) + odd, rows]).astype(np.int64)


def _traverse_lattice(n: int, pairs: NDArray, cell: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, 3) spot, column, row of the largest connected part, adding step to step.

    Stepping from neighbour to neighbour forgives a lattice that drifts or is stretched.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
    _, part = connected_components(graph, directed=False)
    start = int(np.flatnonzero(part == np.bincount(part).argmax())[0])
    order, before = breadth_first_order(graph, start, directed=False)
    step = {}
    for (a, b), (dx, dy) in zip(pairs.tolist(), cell.tolist(), strict=True):
        step[a, b], step[b, a] = (dx, dy), (-dx, -dy)
    at = {start: (0, 0)}
    for spot in order[1:].tolist():
        x, y = at[int(before[spot])]
        dx, dy = step[int(before[spot]), spot]
        at[spot] = (x + dx, y + dy)
    return np.array([(spot, *at[spot]) for spot in order.tolist()], dtype=np.int64)


def _fit_lattice(
    xy: NDArray, walked: NDArray[np.int64], pitch: float, fold: int
) -> NDArray[np.int64] | None:
    """All spots on the lattice fitted through the walked ones; None where some miss it."""
    design = np.column_stack([walked[:, 1:], np.ones(len(walked))]).astype(float)
    if np.linalg.matrix_rank(design) < 3:
        return None
    affine, *_ = np.linalg.lstsq(design, xy[walked[:, 0]], rcond=None)
    if abs(np.linalg.det(affine[:2])) < 1e-6 * pitch**2:
        return None
    array = _nearest_cells(xy - affine[2], affine[:2], fold)
    missed = np.linalg.norm(xy - affine[2] - array @ affine[:2], axis=1)
    return array if float(missed.max()) <= _MAX_RESIDUAL * pitch else None

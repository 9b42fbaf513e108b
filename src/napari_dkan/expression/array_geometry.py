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

MIN_HEXAGONAL_SPOTS = 21  # fewer spots may be hexagonal by chance
_MIN_SPOTS = 16
_NEIGHBOUR_RADIUS = 1.25  # times the nearest distance, below the diagonal of a square
_MIN_ALIGNMENT = 0.85  # length of the mean direction; 1 on an exact lattice, near 0 for cells
_MAX_RESIDUAL = 0.3  # of a pitch; half a pitch would be another position
_HEX_CELL_AREA = 0.5 * np.sqrt(3.0) / 2.0  # area of one (column, row) step on a hexagonal array


def fit_mpp(
    array: NDArray[np.floating],
    pixels: NDArray[np.floating],
    pitch_um: float,
    cell_area: float = 1.0,
) -> float:
    """Fit the micrometres per pixel from spot centres on an array of known pitch.

    An affine transform is fitted by iteratively reweighted least squares (Tukey's weights), so a
    few misplaced spots do not affect it. The scale is the square root of its determinant, which
    does not depend on rotation or mirroring. Nearest-neighbour distances would underestimate the
    pitch, because positions are noisy.

    Parameters
    ----------
    array
        (N, 2) array coordinates (x, y).
    pixels
        (N, 2) pixel positions (x, y) of the same spots.
    pitch_um
        Centre-to-centre distance of neighbouring spots.
    cell_area
        Area of one array step along each axis in pitches squared, 1 on a square array.

    Raises
    ------
    SpotsError
        The spots do not span a plane.
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
    """Fit the micrometres per pixel of the slide from spots with array coordinates and a pitch.

    Returns None if it cannot be determined.
    """
    if spots.array_coords is None or not spots.pitch_um or len(spots) < 4:
        return None
    cell_area = _HEX_CELL_AREA if is_hexagonal(spots.array_coords, MIN_HEXAGONAL_SPOTS) else 1.0
    try:
        return fit_mpp(spots.array_coords.astype(float), spots.xy, spots.pitch_um, cell_area)
    except SpotsError:
        return None


def is_hexagonal(array_coords: NDArray[np.int64], min_spots: int) -> bool:
    """Whether array coordinates (N, 2) are those of a hexagonal (Visium) array.

    In these every second column of a row is empty. An array of fewer than `min_spots` spots is
    not regarded as hexagonal.
    """
    parity = array_coords.sum(axis=1) % 2
    return len(array_coords) >= min_spots and bool((parity == parity[0]).all())


def array_coords_from_lattice(xy: NDArray[np.floating]) -> NDArray[np.int64] | None:
    """Derive array coordinates of spots on a square or hexagonal lattice.

    The first axis is the lattice direction nearest to the image's x. A hexagonal lattice gets
    Visium's coordinates, in which neighbours in a row are two columns apart and the row and
    column of every spot add up to an even number.

    Parameters
    ----------
    xy
        (N, 2) spot centres in px, in any order; gaps and islands are allowed.

    Returns
    -------
    array or None
        (N, 2) integer coordinates (x, y). None if the positions are not a lattice: too few, in
        one line, irregular, or two spots at one position.
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
    # Directions repeat every quarter turn on a square lattice, every sixth on a hexagonal one.
    symmetry, mean = max(
        ((n, np.exp(1j * n * angles).mean()) for n in (4, 6)),
        key=lambda candidate: abs(candidate[1]),
    )
    if abs(mean) < _MIN_ALIGNMENT:
        return None
    pitch = float(np.median(np.linalg.norm(steps, axis=1)))
    basis = _lattice_basis(float(np.angle(mean)) / symmetry, pitch, symmetry)
    traversed = _traverse_lattice(len(xy), pairs, _nearest_cells(steps, basis, symmetry))
    array_coords = _fit_lattice(xy, traversed, pitch, symmetry)
    if array_coords is None or len(np.unique(array_coords, axis=0)) < len(array_coords):
        return None
    shift = array_coords.min(axis=0)
    parity = int(shift.sum() % 2) if symmetry == 6 else 0
    return np.asarray(array_coords - shift + [0, parity], dtype=np.int64)


def _lattice_basis(angle: float, pitch: float, symmetry: int) -> NDArray[np.float64]:
    """Return the px (2, 2) of one step along the columns and along the rows."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    if symmetry == 4:
        return np.stack([along, across]) * pitch
    return np.stack([along / 2, across * np.sqrt(3) / 2]) * pitch


def _nearest_cells(
    offsets: NDArray[np.floating], basis: NDArray[np.floating], symmetry: int
) -> NDArray[np.int64]:
    """Return the lattice cell nearest to each offset from a cell."""
    exact = offsets @ np.linalg.inv(basis)
    if symmetry == 4:
        return np.asarray(np.rint(exact), dtype=np.int64)
    rows = np.rint(exact[:, 1])
    odd = rows % 2
    return np.column_stack([2 * np.rint((exact[:, 0] - odd) / 2) + odd, rows]).astype(np.int64)


def _traverse_lattice(
    n: int, pairs: NDArray[np.integer], steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (M, 3) spot, column, row of the largest connected part, adding step to step.

    Steps from neighbour to neighbour tolerate a lattice that drifts or is stretched.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
    _, component = connected_components(graph, directed=False)
    start = int(np.flatnonzero(component == np.bincount(component).argmax())[0])
    order, predecessors = breadth_first_order(graph, start, directed=False)
    step_between = {}
    for (a, b), (dx, dy) in zip(pairs.tolist(), steps.tolist(), strict=True):
        step_between[a, b], step_between[b, a] = (dx, dy), (-dx, -dy)
    cell_of_spot = {start: (0, 0)}
    for spot in order[1:].tolist():
        predecessor = int(predecessors[spot])
        x, y = cell_of_spot[predecessor]
        dx, dy = step_between[predecessor, spot]
        cell_of_spot[spot] = (x + dx, y + dy)
    return np.array([(spot, *cell_of_spot[spot]) for spot in order.tolist()], dtype=np.int64)


def _fit_lattice(
    xy: NDArray[np.floating], traversed: NDArray[np.int64], pitch: float, symmetry: int
) -> NDArray[np.int64] | None:
    """Assign all spots to the lattice fitted to the traversed ones; None if some do not fit."""
    design = np.column_stack([traversed[:, 1:], np.ones(len(traversed))]).astype(float)
    if np.linalg.matrix_rank(design) < 3:
        return None
    affine, *_ = np.linalg.lstsq(design, xy[traversed[:, 0]], rcond=None)
    if abs(np.linalg.det(affine[:2])) < 1e-6 * pitch**2:
        return None
    array_coords = _nearest_cells(xy - affine[2], affine[:2], symmetry)
    residual = np.linalg.norm(xy - affine[2] - array_coords @ affine[:2], axis=1)
    return array_coords if float(residual.max()) <= _MAX_RESIDUAL * pitch else None

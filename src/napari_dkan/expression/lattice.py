"""Array coordinates derived from spot positions that lie on a regular lattice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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

"""Regions of a compared section where the error is large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spatial.spots import median_spot_distance
from .comparison import Comparison

# In nearest distances: includes the diagonals of a jittered square, not the second ring.
_NEIGHBOUR_DISTANCES = 1.6
_MIN_REGION_SPOTS = 3


@dataclass(frozen=True)
class ErrorRegion:
    """A neighbourhood of spots with a large error.

    Attributes
    ----------
    x, y : float
        Centre in level-0 px.
    radius : float
        Distance in px from the centre to the edge of the outermost spot.
    spot_rows : (K,) array
        Rows of the spots of the comparison.
    mse : float
        Mean squared residual of these spots.
    relative_mse : float
        `mse` divided by that of the section.
    """

    x: float
    y: float
    radius: float
    spot_rows: NDArray[np.int64]
    mse: float
    relative_mse: float


def find_error_regions(
    comparison: Comparison, gene: str | None = None, max_regions: int = 3
) -> tuple[ErrorRegion, ...]:
    """Find the neighbourhoods of highest mean squared residual, worst first.

    A neighbourhood is a spot and its neighbours, so a region is never a single spot. Regions
    share no spot, and all are worse than the average of the section.

    Parameters
    ----------
    gene : str, optional
        Symbol of a gene; None takes the mean over all genes.
    max_regions : int
        Largest number of regions.

    Raises
    ------
    SpotsError
        If the gene is not compared.
    """
    from scipy.sparse import coo_matrix, eye
    from scipy.spatial import cKDTree

    square = np.asarray(comparison.residual, np.float64) ** 2
    error = square.mean(axis=1) if gene is None else square[:, comparison.panel.row(gene)]
    average, xy, n_spots = float(error.mean()), comparison.spots.xy, len(error)
    if average <= 0 or n_spots <= _MIN_REGION_SPOTS:
        return ()
    pitch = median_spot_distance(xy)
    a, b = cKDTree(xy).query_pairs(_NEIGHBOUR_DISTANCES * pitch, output_type="ndarray").T
    neighbours = coo_matrix((np.ones(len(a)), (a, b)), shape=(n_spots, n_spots))
    neighbours = (neighbours + neighbours.T + eye(n_spots)).tocsr()
    size = np.diff(neighbours.indptr)
    mse = neighbours @ error / size
    taken = np.zeros(n_spots, bool)
    found: list[ErrorRegion] = []
    for spot in np.argsort(-mse, kind="stable"):
        if len(found) == max_regions or mse[spot] <= average:
            break
        first, last = neighbours.indptr[spot : spot + 2]
        rows = np.sort(neighbours.indices[first:last]).astype(np.int64)
        if size[spot] < _MIN_REGION_SPOTS or taken[rows].any():
            continue
        taken[rows] = True
        x, y = xy[rows].mean(axis=0)
        radius = float(np.linalg.norm(xy[rows] - (x, y), axis=1).max()) + pitch / 2
        relative_mse = float(mse[spot] / average)
        found.append(ErrorRegion(float(x), float(y), radius, rows, float(mse[spot]), relative_mse))
    return tuple(found)

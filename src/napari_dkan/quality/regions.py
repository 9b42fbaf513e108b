"""Where on a section the prediction is worst: neighbourhoods of large error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .compare import Comparison

_NEIGHBOUR_REACH = 1.6  # times the nearest distance: diagonals of a jittered square, not a second ring
_MIN_REGION_SPOTS = 3  # spots of a region


@dataclass(frozen=True)
class ErrorRegion:
    """A neighbourhood of spots.

    x, y : its middle in level-0 px. radius : px from there to the edge of its outermost spot.
    rows : of the comparison's spots. mse : mean squared residual there.
    times_average : that error over the section's.
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
    """The neighbourhoods of highest mean squared residual, worst first.

    gene : its symbol, None for the mean over all genes. count : at most so many.

    A neighbourhood is a spot and those next to it, so a region is never a single unlucky spot.
    Regions share no spot, and all are worse than the section's average. Raises SpotsError when
    the gene is not compared.
    """
    from scipy.sparse import coo_matrix, eye
    from scipy.spatial import cKDTree

    square = np.asarray(comparison.residual, np.float64) ** 2
    error = square.mean(axis=1) if gene is None else square[:, comparison.panel.row(gene)]
    average, xy, number = float(error.mean()), comparison.spots.xy, len(error)
    if average <= 0 or number <= _MIN_REGION_SPOTS:
        return ()
    tree = cKDTree(xy)
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    a, b = tree.query_pairs(_NEIGHBOUR_REACH * pitch, output_type="ndarray").T
    near = coo_matrix((np.ones(len(a)), (a, b)), shape=(number, number))
    near = (near + near.T + eye(number)).tocsr()
    size = np.diff(near.indptr)
    mse = near @ error / size
    taken = np.zeros(number, bool)
    found: list[ErrorRegion] = []
    for spot in np.argsort(-mse, kind="stable"):
        if len(found) == max_regions or mse[spot] <= average:
            break
        rows = np.sort(near.indices[near.indptr[spot] : near.indptr[spot + 1]]).astype(np.int64)
        if size[spot] < _MIN_REGION_SPOTS or taken[rows].any():
            continue
        taken[rows] = True
        x, y = xy[rows].mean(axis=0)
        radius = float(np.linalg.norm(xy[rows] - (x, y), axis=1).max()) + pitch / 2
        worse = float(mse[spot] / average)
        found.append(ErrorRegion(float(x), float(y), radius, rows, float(mse[spot]), worse))
    return tuple(found)

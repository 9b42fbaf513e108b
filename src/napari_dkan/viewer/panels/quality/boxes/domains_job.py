"""Cluster predicted and measured profiles into domains; for a worker thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .....spatial.polygons import union_polygons
from .....spatial.region_files import NamedRegion
from .....spatial.spots import median_spot_distance
from .....spatial.tile_grid import TileGrid
from ....layers.overlay_lookup import decode_all_genes
from ....layers.prediction_layers import GridOverlay

if TYPE_CHECKING:
    from .....inference.prediction import Prediction
    from .....quality.comparison import Comparison
    from .....quality.domain_genes import DomainGenes


@dataclass(frozen=True, eq=False)
class DomainResult:
    """Domains of the N predicted tiles, or spots, numbered from 1.

    Attributes
    ----------
    predicted : (N,) array
    xy : (N, 2) array
        Centres in level-0 px.
    grid : TileGrid or None
        None for spots.
    genes : DomainGenes
        Of the predicted values.
    measured : ndarray or None
        Of the measured spots, with the numbers of the predicted domains that they share most
        spots with.
    agreement : float
        Adjusted Rand index at the spots.
    n_compared : int
        Spots with a label of both kinds.
    provenance : dict
        Of the prediction, with the parameters of the clustering.
    """

    predicted: NDArray[np.int64]
    xy: NDArray[np.float64]
    grid: TileGrid | None
    genes: DomainGenes
    measured: NDArray[np.int64] | None
    agreement: float
    n_compared: int
    provenance: dict[str, Any]

    @property
    def unit(self) -> str:
        return "spots" if self.grid is None else "tiles"

    def has_domains_of(self, other: DomainResult) -> bool:
        """Return whether both have the same domains at the same places."""
        same = np.array_equal(self.predicted, other.predicted)
        same &= np.array_equal(self.xy, other.xy)
        if self.measured is None or other.measured is None:
            return same and self.measured is other.measured
        return same and np.array_equal(self.measured, other.measured)


def cluster_profiles(
    comparison: Comparison | None, tile_map: GridOverlay | None, resolution: float
) -> Iterator[DomainResult | None]:
    """Cluster the tiles of the map, else the spots; and the measured profiles.

    Yields
    ------
    DomainResult or None
        None while the job goes on.
    """
    from .....quality.domain_genes import compare_domains
    from .....quality.spatial_domains import LEIDEN_SEED, adjusted_rand_index, cluster_domains

    grid, measured, agreement, n_compared = None, None, float("nan"), 0
    if tile_map is not None:
        prediction = decode_all_genes(tile_map)
        columns = checkpoint_columns(prediction)
        symbols = tuple(prediction.panel.symbols[i] for i in columns)
        values, grid = prediction.values[:, columns], prediction.target.grid
        xy = prediction.target.spots.xy
    else:
        assert comparison is not None
        prediction, symbols = comparison.prediction, comparison.panel.symbols
        values, xy = comparison.predicted, comparison.spots.xy
    predicted = cluster_domains(values, resolution)
    yield None
    genes = compare_domains(values, symbols, predicted)
    yield None
    if comparison is not None:
        measured, at_spots = cluster_domains(comparison.measured, resolution), predicted
        if grid is not None:
            at_spots = tile_labels_at(grid, predicted, comparison.spots.xy)
        is_labeled = at_spots > 0
        n_compared = int(is_labeled.sum())
        if n_compared > 1:
            agreement = adjusted_rand_index(at_spots[is_labeled], measured[is_labeled])
        measured = match_cluster_labels(measured, at_spots)
    provenance = {
        "about": "Domains of expression predicted from H&E. Research only, not for diagnosis.",
        "effect": "Cohen's d against the other tiles of the same slide, so of one patient",
        **prediction.provenance,
        "leiden_resolution": resolution,
        "leiden_seed": LEIDEN_SEED,
    }
    yield DomainResult(predicted, xy, grid, genes, measured, agreement, n_compared, provenance)


def checkpoint_columns(prediction: Prediction) -> list[int]:
    """Return the columns without genes predicted from their text, whose scale differs."""
    symbols = prediction.panel.symbols
    return [i for i, s in enumerate(symbols) if s not in prediction.zero_shot_symbols]


def match_cluster_labels(
    labels: NDArray[np.integer], reference: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Renumber clusters (N,) so that they have the colours of those they share most spots with.

    Clusters without a counterpart get new numbers. The assignment maximizes the number of shared
    spots (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((int(labels.max()) + 1, int(reference.max()) + 1))
    np.add.at(shared, (labels, reference), 1)
    shared[0] = shared[:, 0] = 0
    renumbered: NDArray[np.int64] = np.zeros(len(shared), np.int64)
    for label, match in zip(*linear_sum_assignment(-shared), strict=True):
        if shared[label, match]:
            renumbered[label] = match
    next_number = int(reference.max())
    for label in range(1, len(renumbered)):
        if not renumbered[label]:
            next_number += 1
            renumbered[label] = next_number
    matched: NDArray[np.int64] = renumbered[labels]
    return matched


def tile_labels_at(
    grid: TileGrid, labels: NDArray[np.integer], xy: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the labels (N,) of the tiles (T,) at positions (N, 2) in level-0 px; 0 for none."""
    label_of_cell = dict(zip(map(tuple, grid.cells.tolist()), labels.tolist(), strict=True))
    cells = np.floor(xy / grid.pitch).astype(int).tolist()
    return np.array([label_of_cell.get(tuple(cell), 0) for cell in cells], np.int64)


MAX_GAP = 0.3  # of the pitch: squares around neighbouring spots of an irregular array join


def domain_regions(
    result: DomainResult, names: Sequence[str], colors: Sequence[str]
) -> list[NamedRegion]:
    """Return a region of each predicted domain in level-0 px, made of the squares of its tiles."""
    from shapely import box

    grid, gap = result.grid, 0.0
    if grid is not None:
        corners = grid.cells * grid.pitch, (grid.cells + 1) * grid.pitch
    else:
        pitch = median_spot_distance(result.xy)
        corners, gap = (result.xy - pitch / 2, result.xy + pitch / 2), MAX_GAP * pitch
    squares = box(*corners[0].T, *corners[1].T)
    regions = []
    for number in range(1, len(result.genes.n_tiles) + 1):
        outline = union_polygons(squares[result.predicted == number].tolist())
        if gap:  # close the gaps; the outline stays
            outline = outline.buffer(gap / 2, join_style="mitre").buffer(
                -gap / 2, join_style="mitre"
            )
        color = tuple(bytes.fromhex(colors[number - 1].lstrip("#")))
        regions.append(NamedRegion(outline, "", names[number - 1], (color[0], color[1], color[2])))
    return regions

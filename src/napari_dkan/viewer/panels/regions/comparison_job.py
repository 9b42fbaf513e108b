"""Compare two regions of a slide, predicted and measured; for a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ....errors import SpotsError
from ...layers.slide_tiles import SlideTiles, TileValues

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ....quality.region_comparison import RegionComparison


@dataclass(frozen=True, eq=False)
class ComparisonRequest:
    """What is compared.

    Attributes
    ----------
    name_a, name_b : str
    regions_a, regions_b : sequence of shapely geometries
        In level-0 px; None for B: the rest.
    tiles : SlideTiles or None
    measured : TileValues or None
    depth : ndarray or None
        Counts of the measured spots.
    sets : Path, "" or None
        A GMT file, "" for Hallmark, None for genes.
    from_domains : bool
        A or B is a spatial domain, which was found in the same values.
    """

    name_a: str
    name_b: str
    regions_a: Sequence[BaseGeometry]
    regions_b: Sequence[BaseGeometry] | None
    tiles: SlideTiles | None
    measured: TileValues | None
    depth: NDArray[np.float64] | None = None
    sets: Path | str | None = None
    from_domains: bool = False


@dataclass(frozen=True, eq=False)
class ComparedValues:
    """A comparison and the values that it is made of.

    Attributes
    ----------
    comparison : RegionComparison
    tiles : TileValues
        Values of the genes, or scores of the sets.
    values : (N, G) array
    in_a, in_b : (N,) bool arrays
    n_both : int
        Tiles in regions of A and of B, which belong to the smaller one.
    depth_a, depth_b : float
        Median counts of the measured spots; NaN where they are unknown.
    """

    comparison: RegionComparison
    tiles: TileValues
    values: NDArray[np.floating]
    in_a: NDArray[np.bool_]
    in_b: NDArray[np.bool_]
    n_both: int
    depth_a: float = float("nan")
    depth_b: float = float("nan")


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """Both comparisons; the measured one is None where it is not possible, for a reason."""

    request: ComparisonRequest
    predicted: ComparedValues
    measured: ComparedValues | None = None
    measured_reason: str = ""


def run_comparison(request: ComparisonRequest) -> ComparisonResult:
    """Compare the predicted and, where there is a measured section, the measured values.

    Raises
    ------
    SpotsError
        Nothing is predicted in A or B, or they are the same.
    GeneError
        No gene set can be scored.
    """
    if request.tiles is None:
        raise SpotsError("Nothing is predicted on this slide yet; press Predict whole tissue.")
    predicted = _compare(request, request.tiles.read(), None)
    if request.measured is None:
        return ComparisonResult(request, predicted)
    try:
        measured = _compare(request, request.measured, request.depth)
    except SpotsError as error:
        reason = str(error).replace("predicted tile; predict it first", "measured spot")
        return ComparisonResult(request, predicted, None, reason)
    return ComparisonResult(request, predicted, measured)


def _compare(
    request: ComparisonRequest, tiles: TileValues, depth: NDArray[np.float64] | None
) -> ComparedValues:
    from ....quality.region_comparison import compare_regions
    from ....quality.region_statistics import separate_regions

    in_a, in_b, n_both = separate_regions(
        request.regions_a, request.regions_b, tiles.xy, tiles.pitch
    )
    for inside, name in ((in_a, request.name_a), (in_b, request.name_b)):
        if not inside.any():
            raise SpotsError(
                f"{name[:1].upper()}{name[1:]} holds no predicted tile; predict it first."
            )
    values: NDArray[np.floating] = tiles.values
    names = tiles.panel.symbols
    if request.sets is not None:
        names, values = _score(tiles, request.sets)
    usable = np.isfinite(values).all(axis=1)
    in_a, in_b = in_a & usable, in_b & usable
    comparison = compare_regions(values, names, tiles.xy, in_a, in_b)
    depths = [np.nan, np.nan]
    if depth is not None:
        depths = [float(np.median(depth[inside])) for inside in (in_a, in_b)]
    return ComparedValues(comparison, tiles, values, in_a, in_b, n_both, *depths)


def _score(tiles: TileValues, sets: Path | str) -> tuple[tuple[str, ...], NDArray[np.floating]]:
    from ....quality.gene_sets import load_hallmark_sets, read_gmt, score_gene_sets

    known = load_hallmark_sets() if not sets else read_gmt(sets)
    scored = score_gene_sets(tiles.values, tiles.panel, known)
    titles = {s.name: s.title for s in known}
    return tuple(titles[n] for n in scored.names), scored.scores

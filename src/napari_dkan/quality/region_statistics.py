"""Tiles of regions, and their statistics: number, area, mean, median, share unreliable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegionStatistics:
    """Statistics of R regions over G genes.

    Attributes
    ----------
    n_tiles : (R,) array
    area_mm2 : (R,) array
        Of the outline without its holes, not of the tiles.
    mean, median : (R, G) arrays
        Over the tiles with a value; NaN without any.
    unreliable : (R,) array
        Share of unreliable tiles; NaN without tiles, or where no reliability is known.
    """

    n_tiles: NDArray[np.int64]
    area_mm2: FloatArray
    mean: FloatArray
    median: FloatArray
    unreliable: FloatArray


def tiles_in_region(
    region: BaseGeometry, xy: NDArray[np.floating], pitch: float
) -> NDArray[np.bool_]:
    """Return the tiles (N,) of a region: those whose centre it holds.

    A region that is too small to hold a centre has the tile under its representative point, as in
    a prediction of it.

    Parameters
    ----------
    region : shapely geometry
        In level-0 px; holes and several parts count.
    xy : (N, 2) array
        Centres of the tiles in level-0 px.
    pitch : float
        Side of a tile in level-0 px.
    """
    inside = np.zeros(len(xy), bool)
    if region.is_empty or not len(xy):
        return inside
    shapely.prepare(region)
    inside = np.asarray(shapely.contains_xy(region, xy[:, 0], xy[:, 1]))
    if not inside.any():
        point = region.representative_point()
        offset = np.abs(xy - [point.x, point.y]).max(axis=1)
        nearest = int(np.argmin(offset))
        inside[nearest] = offset[nearest] <= pitch / 2
    return inside


def separate_regions(
    a: Sequence[BaseGeometry],
    b: Sequence[BaseGeometry] | None,
    xy: NDArray[np.floating],
    pitch: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], int]:
    """Return the tiles of A and of B, none in both, and the number of those that lie in both.

    A tile in a region of A and in one of B belongs to the smaller region, so that a nest inside a
    tumour is compared with the tumour around it.

    Parameters
    ----------
    a, b : sequences of shapely geometries
        The regions of A and of B in level-0 px; None for B: all tiles that are not in A.
    xy : (N, 2) array
        Centres of the tiles in level-0 px.
    pitch : float
        Side of a tile in level-0 px.
    """
    smallest = [_smallest_area(regions, xy, pitch) for regions in (a, b or ())]
    in_a = np.isfinite(smallest[0])
    if b is None:
        return in_a, ~in_a, 0
    in_b = np.isfinite(smallest[1])
    both = in_a & in_b
    to_a = smallest[0] < smallest[1]
    # Two regions of the same area are the same region: their tiles are left out of both.
    to_b = smallest[1] < smallest[0]
    return in_a & to_a, in_b & to_b, int(both.sum())


def _smallest_area(
    regions: Sequence[BaseGeometry], xy: NDArray[np.floating], pitch: float
) -> FloatArray:
    """Area of the smallest region that holds each tile, infinite outside of all."""
    smallest = np.full(len(xy), np.inf)
    for region in regions:
        inside = tiles_in_region(region, xy, pitch)
        smallest[inside] = np.minimum(smallest[inside], region.area)
    return smallest


def summarize_regions(
    regions: Sequence[BaseGeometry],
    values: NDArray[np.floating],
    xy: NDArray[np.floating],
    pitch: float,
    mpp: float,
    unreliable: NDArray[np.bool_] | None = None,
) -> RegionStatistics:
    """Summarise the tiles of regions.

    Parameters
    ----------
    regions : sequence of R shapely geometries
        In level-0 px. They may overlap; each is summarised by itself.
    values : (N, G) array
        NaN where a tile has no value.
    xy : (N, 2) array
        Centres of the tiles in level-0 px.
    pitch : float
        Side of a tile in level-0 px.
    mpp : float
        um per level-0 px.
    unreliable : (N,) bool array, optional
        Tiles whose prediction is unreliable; None where that is not known.
    """
    n_regions, n_genes = len(regions), values.shape[1]
    n_tiles = np.zeros(n_regions, np.int64)
    mean, median = np.full((2, n_regions, n_genes), np.nan)
    share = np.full(n_regions, np.nan)
    for row, region in enumerate(regions):
        inside = tiles_in_region(region, xy, pitch)
        n_tiles[row] = inside.sum()
        if not n_tiles[row]:
            continue
        chosen = np.asarray(values[inside], np.float64)
        known = np.isfinite(chosen).any(axis=0)
        mean[row, known] = np.nanmean(chosen[:, known], axis=0)
        median[row, known] = np.nanmedian(chosen[:, known], axis=0)
        if unreliable is not None:
            share[row] = unreliable[inside].mean()
    area = np.array([r.area for r in regions], np.float64) * (mpp / 1000) ** 2
    return RegionStatistics(n_tiles, area, mean, median, share)

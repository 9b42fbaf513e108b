"""Masks: label images as polygons along the edges of their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError

MAX_EDGES = 1_500_000  # straight pieces of outline; so many take seconds


def mask_scale(
    shape: Sequence[int], width: int, height: int, mask_name: str = "The mask"
) -> tuple[float, float]:
    """Level-0 px in one pixel of a mask (rows, columns) of a slide, along x and y.

    Programs that shrink a slide round its size down or up, so a power of two, else a whole
    number, is taken where it fits to a pixel; then it is exact at the far edge too.

    Raises SpotsError when the mask has not the slide's proportions.
    """
    rows, columns = (int(n) for n in shape[:2])
    if min(rows, columns) < 1:
        raise SpotsError(f"{mask_name} is empty; export the mask of the whole slide.")
    low = max(width / (columns + 1), height / (rows + 1))
    high = min(width / max(columns - 1, 0.5), height / max(rows - 1, 0.5))
    if low >= high:
        raise SpotsError(
            f"{mask_name} is {columns:,} x {rows:,} px, which are not the proportions of the slide "
            f"({width:,} x {height:,} px); export the mask of the whole slide."
        )
    x, y = width / columns, height / rows
    for whole in (2.0 ** round(math.log2(math.sqrt(x * y))), float(round(math.sqrt(x * y)))):
        if low < whole < high:
            return whole, whole
    return x, y


def polygons_from_mask(
    labels: NDArray, scale: tuple[float, float] = (1.0, 1.0), mask_name: str = "The mask"
) -> dict[int, BaseGeometry]:
    """Polygons of every label but 0 of an image (H, W) of bool or whole numbers.

    The outlines run along pixel edges, so areas are those of the pixels; holes are kept. Pixels
    that touch at a corner only are separate polygons. scale : level-0 px per pixel, (x, y).

    Raises SpotsError when the outline is so ragged that it would take very long.
    """
    image = np.asarray(labels)
    if image.ndim != 2 or image.dtype.kind not in "bui":
        raise ValueError(
            f"a mask is a flat image of whole numbers, not {image.shape} {image.dtype}"
        )
    lines = _trace_outlines(np.pad(image, 1), mask_name)
    if not len(lines):
        return {}
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces))
    column, row = np.floor(inside).astype(np.int64).T
    of_face = image[row, column]
    sizes = np.asarray(scale, dtype=np.float64)
    made = {}
    for label in np.unique(of_face[of_face != 0]):
        parts = shapely.transform(faces[of_face == label], lambda xy: xy * sizes)
        # Faces of one label meet in corners only.
        made[int(label)] = parts[0] if len(parts) == 1 else MultiPolygon(list(parts))
    return made


def _trace_outlines(padded: NDArray, mask_name: str) -> NDArray[np.float64]:
    """(N, 2, 2) straight pieces (x, y) between unlike pixels, cut where others join them.

    padded : with a frame of 0, of which the inner corner is the origin.
    """
    across = padded[1:] != padded[:-1]  # [r, c]: a piece along x at the height r
    along = padded[:, 1:] != padded[:, :-1]  # [r, c]: a piece along y at the place c
    pieces = []
    for edges, others, swap in ((across, along, False), (along.T, across.T, True)):
        # A piece goes on over a corner where no other piece starts.
        corner = others[:-1] | others[1:]
        bound = np.zeros((edges.shape[0], edges.shape[1] + 1), bool)
        bound[:, 1:-1] = corner | (edges[:, 1:] != edges[:, :-1])
        bound[:, 0] = bound[:, -1] = True
        line, start = np.nonzero(edges & bound[:, :-1])
        _, end = np.nonzero(edges & bound[:, 1:])
        if len(start) > MAX_EDGES:
            raise SpotsError(
                f"{mask_name} is too ragged to be outlined; smooth it, or leave out single cells."
            )
        ends = np.stack([[start, line], [end + 1, line]]).transpose(2, 0, 1) - (1, 0)
        pieces.append(ends[:, :, ::-1] if swap else ends)
    return np.concatenate(pieces).astype(np.float64)

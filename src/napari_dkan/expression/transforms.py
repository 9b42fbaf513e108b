"""Coordinate transformations of OME-NGFF and SpatialData as 3 x 3 matrices on (x, y, 1).

Format: the transformations of the NGFF draft 0.5-dev that SpatialData writes ("identity",
"scale", "translation", "affine", "mapAxis", "sequence").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError

_MAX_SEQUENCE_DEPTH = 16


def transforms_to_systems(
    transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Matrices from an element's own (x, y) to each coordinate system it belongs to.

    axes : the element's axes in their order, used where a transformation names none.

    Raises SpotsError when one is of an unknown kind or malformed.
    """
    systems = {}
    for one in transformations:
        name = str(dict(one.get("output") or {}).get("name", "global"))
        try:
            systems[name] = _parse_transform(one, list(axes), 0)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SpotsError(
                f"its coordinate transformation to {name} is malformed or of an unknown kind"
            ) from error
    return systems


def _parse_transform(transform: Mapping[str, Any], axes: list[str], depth: int) -> NDArray[np.float64]:
    given, out = (_axis_names(transform.get(key), axes) for key in ("input", "output"))
    kind, matrix = transform["type"], np.eye(3)
    if kind == "identity":
        return matrix
    if kind in ("scale", "translation"):
        values = dict(zip(given, map(float, transform[kind]), strict=True))
        for i, axis in enumerate("xy"):
            matrix[(i, i) if kind == "scale" else (i, 2)] = values[axis]
    elif kind == "affine":
        table = np.asarray(transform["affine"], dtype=float)
        if table.shape[1] != len(given) + 1 or table.shape[0] not in (len(out), len(out) + 1):
            raise ValueError("shape")
        columns = [given.index("x"), given.index("y"), -1]
        for i, axis in enumerate("xy"):
            matrix[i] = table[out.index(axis)][columns]
    elif kind == "mapAxis":
        matrix = np.zeros((3, 3))
        matrix[2, 2] = 1
        for i, axis in enumerate("xy"):
            matrix[i, "xy".index(transform["mapAxis"][axis])] = 1
    elif kind == "sequence" and depth < _MAX_SEQUENCE_DEPTH:
        for part in transform["transformations"]:
            matrix = _parse_transform(part, given, depth + 1) @ matrix
    else:
        raise ValueError(kind)
    if not np.isfinite(matrix).all():
        raise ValueError("not finite")
    return matrix


def _axis_names(system: Any, axes: list[str]) -> list[str]:
    if not isinstance(system, Mapping) or not system.get("axes"):
        return axes
    return [axis["name"] for axis in system["axes"]]


def apply_transform(matrix: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) points moved by a 3 x 3 matrix."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]

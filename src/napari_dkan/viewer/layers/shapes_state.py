"""The shapes of a region layer at one moment, to compare them and to bring them back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .region_objects import complete_features, set_features

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Shapes
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShapesState:
    """N shapes of a layer.

    Attributes
    ----------
    vertices : tuple of (V, 2) arrays
        In data coordinates of the layer. Arrays of unchanged shapes are shared between states.
    kinds : tuple of str
        As in ``Shapes.shape_type``.
    features : DataFrame
        With all columns of regions.
    edge_color, face_color : (N, 4) arrays
    """

    vertices: tuple[NDArray[np.float64], ...]
    kinds: tuple[str, ...]
    features: pd.DataFrame
    edge_color: NDArray[np.float64]
    face_color: NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.vertices)

    def has_shapes_of(self, other: ShapesState) -> bool:
        """Return whether outlines and kinds of both are the same."""
        return self.kinds == other.kinds and all(
            a is b or np.array_equal(a, b)
            for a, b in zip(self.vertices, other.vertices, strict=True)
        )

    def has_colors_of(self, other: ShapesState) -> bool:
        return np.array_equal(self.edge_color, other.edge_color) and np.array_equal(
            self.face_color, other.face_color
        )

    def equals(self, other: ShapesState) -> bool:
        return (
            self.has_shapes_of(other)
            and self.has_colors_of(other)
            and self.features.equals(other.features)
        )

    def restore(self, layer: Shapes) -> None:
        """Give a layer these shapes; the tool, and what is drawn next, stay."""
        now = read_shapes(layer)
        if not self.has_shapes_of(now):
            width = layer.current_edge_width if not now.kinds else layer.edge_width[0]
            layer.selected_data = set()
            layer.remove(list(range(len(now.kinds))))
            if self.kinds:
                layer.add([v.copy() for v in self.vertices], shape_type=list(self.kinds))
                layer.edge_width = width
                layer.selected_data = set()
        set_features(layer, self.features.copy())
        if self.kinds:
            layer.edge_color, layer.face_color = self.edge_color.copy(), self.face_color.copy()


def read_shapes(layer: Shapes, known: ShapesState | None = None) -> ShapesState:
    """Read the shapes of a layer; arrays that a known state has are taken from it."""
    earlier = () if known is None else known.vertices
    vertices = []
    for row, data in enumerate(layer.data):
        same = row < len(earlier) and np.array_equal(earlier[row], data)
        vertices.append(earlier[row] if same else np.array(data))
    return ShapesState(
        tuple(vertices),
        tuple(layer.shape_type),
        complete_features(layer),
        np.array(layer.edge_color),
        np.array(layer.face_color),
    )


def describe_difference(before: ShapesState, after: ShapesState) -> str:
    """Return what the user did between two states, as in "delete Stroma"."""
    n_before, n_after = len(before.kinds), len(after.kinds)
    if n_after > n_before:
        return f"draw {_name_rows(after, _rows_beyond(after, before))}"
    if n_after < n_before:
        return f"delete {_name_rows(before, _rows_beyond(before, after))}"
    if not before.has_shapes_of(after):
        rows = [
            i
            for i, (a, b) in enumerate(zip(before.vertices, after.vertices, strict=True))
            if not np.array_equal(a, b)
        ]
        return f"change {_name_rows(after, rows)}"
    for column, verb in (("classification", "class of"), ("name", "rename")):
        rows = np.flatnonzero(before.features[column] != after.features[column]).tolist()
        if rows:
            return f"{verb} {_name_rows(before, rows)}"
    different = (before.edge_color != after.edge_color) | (before.face_color != after.face_color)
    return f"colour of {_name_rows(after, np.flatnonzero(different.any(axis=1)).tolist())}"


def _rows_beyond(state: ShapesState, other: ShapesState) -> list[int]:
    """Rows of shapes that the other state lacks."""
    left = Counter(v.tobytes() for v in other.vertices)
    rows = []
    for row, vertices in enumerate(state.vertices):
        key = vertices.tobytes()
        if left[key]:
            left[key] -= 1
        else:
            rows.append(row)
    return rows


def _name_rows(state: ShapesState, rows: list[int]) -> str:
    table = state.features
    names = [
        str(table["name"].iloc[row] or table["classification"].iloc[row] or "region")
        for row in rows
    ]
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{len(rows)} shapes"

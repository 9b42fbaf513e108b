"""Regions as objects: each shape, or imported object, of the region layers with its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import shapely
from napari.layers import Layer, Shapes

from ...spatial.polygons import polygons_from_shapes, to_valid_polygons, union_polygons
from ...spatial.region_files import NamedRegion
from ..session.slide_layer import METADATA_PREFIX, ViewerSlide, layer_to_slide
from ..widgets.signal_connections import SignalConnections
from .region_layers import (
    HAND_DRAWN_ID,
    LABEL_TEXT,
    MAX_SHAPE_LABELS,
    REGIONS_KEY,
    default_features,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from ..session.viewer_session import ViewerSession


UNCLASSIFIED = "Unclassified"
HOLES_KEY = "inner shapes are holes"  # in the metadata of a layer: of the shape drawn next
DOMAINS_KEY = "regions of domains"  # in the metadata of a layer whose regions are spatial domains
# Okabe and Ito, without black and without the colour of new regions; told apart by everyone.
CLASS_COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")


@dataclass(frozen=True, eq=False)
class RegionObject:
    """One region of a layer.

    Attributes
    ----------
    region : NamedRegion
        In level-0 px, with its holes cut out; the name is never empty.
    layer : Shapes
    rows : tuple of int
        Its shapes: outlines and holes.
    """

    region: NamedRegion
    layer: Shapes
    rows: tuple[int, ...]

    @property
    def class_name(self) -> str:
        return self.region.classification or UNCLASSIFIED


def is_region_layer(layer: Layer) -> TypeGuard[Shapes]:
    """Return whether a layer holds regions: Shapes that are neither ruler nor tissue outline."""
    return isinstance(layer, Shapes) and (
        REGIONS_KEY in layer.metadata or METADATA_PREFIX not in layer.metadata
    )


def region_layers(session: ViewerSession, slide: ViewerSlide) -> list[Shapes]:
    """Return the region layers of a slide, oldest first."""
    registry = session.viewer_slides.layer_registry
    layers = [layer for layer in session.viewer.layers if is_region_layer(layer)]
    attached = registry.layers_of(slide, layers)
    others = [s for s in session.slides if s is not slide]
    elsewhere = [layer for s in others for layer in registry.layers_of(s, layers)]
    return [x for x in layers if x in attached or (x not in elsewhere and len(session.slides) == 1)]


def list_region_objects(layers: Iterable[Shapes], slide: ViewerSlide) -> tuple[RegionObject, ...]:
    """Return the regions of layers with an area, in the order of their shapes.

    Objects from a file are as in the file. Of drawn shapes, one that is entirely inside another
    of its class is a hole in it.
    """
    found: list[RegionObject] = []
    counts: dict[str, int] = {}
    for layer in layers:
        columns = complete_features(layer)
        polygons = [
            to_valid_polygons(union_polygons(p)) if p else shapely.MultiPolygon()
            for p in (
                polygons_from_shapes([kind], [layer_to_slide(layer, data, slide)])
                for kind, data in zip(layer.shape_type, layer.data, strict=True)
            )
        ]
        for outlines, holes in _group_shapes(columns, polygons):
            geometry = union_polygons([polygons[i] for i in outlines])
            if holes:
                geometry = to_valid_polygons(
                    geometry.difference(union_polygons([polygons[i] for i in holes]))
                )
            if geometry.is_empty:
                continue
            first = outlines[0]
            class_name = str(columns["classification"][first])
            counts[class_name] = counts.get(class_name, 0) + 1
            default = f"{class_name or 'Region'} #{counts[class_name]}"
            name = str(columns["name"][first]) or default
            red, green, blue = (round(255 * float(c)) for c in layer.edge_color[first][:3])
            region = NamedRegion(geometry, name, class_name, (red, green, blue))
            found.append(RegionObject(region, layer, (*outlines, *holes)))
    return tuple(found)


def complete_features(layer: Shapes) -> pd.DataFrame:
    """Return the features of the shapes with all columns of regions, without NaN."""
    import pandas as pd  # a third of a second, which the first sight of the panel does not need

    # napari keeps the row of a begun shape that is given up.
    table = layer.features.reset_index(drop=True).reindex(range(len(layer.data)))
    for column, default in default_features().items():
        if column not in table:
            table[column] = default
        values = [default if pd.isna(v) else v for v in table[column]]
        table[column] = pd.Series(values, dtype=type(default) if default != "" else object)
    return table


def _group_shapes(
    table: pd.DataFrame, polygons: Sequence[BaseGeometry]
) -> list[tuple[list[int], list[int]]]:
    """The outlines and holes of each object, by the rows of the shapes."""
    imported: dict[int, tuple[list[int], list[int]]] = {}
    drawn: dict[str, list[int]] = {}
    for row, (number, hole, name) in enumerate(
        zip(table["object"], table["hole"], table["classification"], strict=True)
    ):
        if polygons[row].is_empty:
            continue
        if number != HAND_DRAWN_ID:
            imported.setdefault(int(number), ([], []))[bool(hole)].append(row)
        else:
            drawn.setdefault(name, []).append(row)
    groups = [group for group in imported.values() if group[0]]
    for rows in drawn.values():
        groups += _nested_shapes(rows, polygons)
    return sorted(groups)


def _nested_shapes(
    rows: list[int], polygons: Sequence[BaseGeometry]
) -> list[tuple[list[int], list[int]]]:
    """Outlines and their holes among the drawn shapes of a class; an island is an outline."""
    chosen = [polygons[row] for row in rows]
    inner, outer = shapely.STRtree(chosen).query(chosen, predicate="within")
    parents: dict[int, list[int]] = {i: [] for i in range(len(rows))}
    for i, o in zip(inner.tolist(), outer.tolist(), strict=True):
        if i != o and not chosen[i].equals(chosen[o]):
            parents[i].append(o)
    groups = {i: ([rows[i]], list[int]()) for i in parents if len(parents[i]) % 2 == 0}
    for i, containers in parents.items():
        if len(containers) % 2:
            nearest = min(containers, key=lambda o: chosen[o].area)
            groups[nearest][1].append(rows[i])
    return list(groups.values())


class RegionLayerWatch:
    """Calls back when regions are drawn, changed or removed."""

    def __init__(
        self,
        session: ViewerSession,
        connections: SignalConnections,
        callback: Callable[..., None],
    ) -> None:
        self._session, self._callback = session, callback
        self._watched: dict[int, SignalConnections] = {}
        layers = session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.on_disconnect(self._unwatch_all)
        self.refresh()

    def _on_layers_changed(self, event: object = None) -> None:
        self.refresh()
        self._callback()

    def refresh(self) -> None:
        """Follow the shapes of all region layers."""
        layers = {id(x): x for x in self._session.viewer.layers if is_region_layer(x)}
        for key in [k for k in self._watched if k not in layers]:
            self._watched.pop(key).disconnect_all()
        for key, layer in layers.items():
            if key not in self._watched and isinstance(layer, Shapes):
                events, links = layer.events, SignalConnections()
                links.connect(
                    self._callback,
                    events.data,
                    events.features,
                    events.edge_color,
                    events.scale,
                    events.affine,
                )
                self._watched[key] = links

    def _unwatch_all(self) -> None:
        for links in self._watched.values():
            links.disconnect_all()
        self._watched = {}


# ---- changes -----------------------------------------------------------------------------


def find_free_class(objects: Iterable[RegionObject]) -> tuple[str, str]:
    """Return a name and a colour for a new class that none of the regions has."""
    known = {o.class_name: o.region.color for o in objects}
    number = next(n for n in range(1, len(known) + 2) if f"Region {n}" not in known)
    used = {"#{:02x}{:02x}{:02x}".format(*color) for color in known.values() if color is not None}
    free = [color for color in CLASS_COLORS if color not in used] or CLASS_COLORS
    return f"Region {number}", free[0]


def take_hole(layer: Shapes, slide: ViewerSlide) -> None:
    """Make a hole of the last shape if it was drawn as such, entirely inside another region."""
    last = len(layer.data) - 1
    if not layer.metadata.get(HOLES_KEY):
        return
    objects = list_region_objects([layer], slide)
    drawn = next((o for o in objects if o.rows == (last,)), None)
    if drawn is None:
        return
    others = (o for o in objects if o is not drawn)
    around = [o for o in others if o.region.geometry.contains(drawn.region.geometry)]
    if around:
        outer = min(around, key=lambda o: o.region.geometry.area)
        is_drawn = complete_features(layer)["object"][outer.rows[0]] == HAND_DRAWN_ID
        # Shapes of a file keep their holes apart; a shape without a class is one in them.
        classify([drawn], outer.region.classification if is_drawn else "")
        recolor([drawn], np.array(outer.region.color) / 255)


def prepare_drawing(
    layer: Shapes, class_name: str, color: str, inside_is_hole: bool = False
) -> None:
    """Give shapes that are drawn next a class and its colour.

    Parameters
    ----------
    layer : Shapes
    class_name, color : str
    inside_is_hole : bool
        What is drawn inside a region of another class is a hole in it; see `take_hole`.
    """
    layer.metadata[HOLES_KEY] = inside_is_hole
    layer.selected_data = set()  # or the colour of the selected shapes would change
    set_features(layer, complete_features(layer))
    layer.feature_defaults = {
        **default_features(),
        "classification": class_name,
        "label": class_name,
    }
    layer.current_edge_color = color
    layer.current_face_color = "transparent"


def classify(objects: Sequence[RegionObject], class_name: str, color: Any = None) -> None:
    """Give regions a class and, if there is one, a colour (of any form that napari takes)."""
    for layer, rows in _rows_by_layer(objects):
        table = complete_features(layer)
        table.loc[rows, "classification"] = class_name
        _set_labels(table, rows)
        set_features(layer, table)
        if color is not None:
            recolor(objects, color)


def rename(region: RegionObject, name: str) -> None:
    """Give one region a name."""
    for layer, rows in _rows_by_layer([region]):
        table = complete_features(layer)
        table.loc[rows, "name"] = name
        _set_labels(table, rows)
        set_features(layer, table)


def recolor(objects: Sequence[RegionObject], color: Any) -> None:
    """Give regions a colour."""
    from napari.utils.colormaps.standardize_color import transform_color

    for layer, rows in _rows_by_layer(objects):
        colors: NDArray[np.float32] = np.array(layer.edge_color)
        colors[rows] = transform_color(color)[0]
        layer.edge_color = colors


def delete(objects: Sequence[RegionObject]) -> None:
    """Remove regions from their layers."""
    for layer, rows in _rows_by_layer(objects):
        layer.selected_data = set(rows)
        layer.remove_selected()


def _rows_by_layer(objects: Sequence[RegionObject]) -> list[tuple[Shapes, list[int]]]:
    layers = list({id(o.layer): o.layer for o in objects}.values())
    return [(x, [r for o in objects if o.layer is x for r in o.rows]) for x in layers]


def _set_labels(table: pd.DataFrame, rows: list[int]) -> None:
    """Write the text on the canvas: that of a hole stays empty."""
    for row in rows:
        if not table.at[row, "hole"]:
            region = NamedRegion(
                shapely.Point(), str(table.at[row, "name"]), str(table.at[row, "classification"])
            )
            table.at[row, "label"] = region.label


def set_features(layer: Shapes, table: pd.DataFrame) -> None:
    """Replace the features of the shapes; those of shapes that are drawn next stay."""
    defaults = {**default_features(), **{k: v.iloc[0] for k, v in layer.feature_defaults.items()}}
    layer.features = table
    layer.feature_defaults = {k: defaults[k] for k in table.columns if k in defaults}
    has_text = layer.text.string.encoding_type != "ConstantStringEncoding"  # "" where there is none
    if not has_text and len(table) <= MAX_SHAPE_LABELS:
        layer.text = LABEL_TEXT
    layer.refresh_text()

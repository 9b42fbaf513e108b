"""Read annotations, detections and cores from QuPath's GeoJSON.

QuPath exports a FeatureCollection, an array of Features or a single one, plain, in gzip or in
zip; see https://qupath.readthedocs.io (Exporting annotations). Coordinates are level-0 px.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .object_types import RegionObjects, is_ignored_class, object_type
from .polygons import has_too_many_crossings, to_valid_polygons
from .qupath_objects import (
    NamedRegion,
    NoteCallback,
    cut_out_ignored,
    ignore_note,
    select_objects,
)

MAX_GEOJSON_BYTES = 256 << 20
MAX_GEOJSON_LISTS = 5_000_000  # every point is a list; as Python objects these take about 1 GB
MAX_GEOJSON_OBJECTS = 1_000_000
MAX_GEOJSON_VALUES = 25_000_000
MAX_COORDINATE_PX = 1e8  # larger than any slide

# Exceptions of json, gzip, zip and shapely for files of other formats and malformed files.
_PARSE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # RecursionError, and zip files with a password
    zlib.error,
    zipfile.BadZipFile,
    ShapelyError,
)
_GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)


def read_geojson_regions(
    path: Path, objects: RegionObjects | None = None, note: NoteCallback = ignore_note
) -> tuple[NamedRegion, ...]:
    """Read the annotations of a GeoJSON file.

    Objects of classes that QuPath ignores (``Ignore*``) are cut out.

    Parameters
    ----------
    objects
        Read these instead. None: the annotations; in a file without any, its detections (cells,
        tiles) or its cores, if it has only one of them.
    note
        Called with a sentence about objects that are left out.

    Raises
    ------
    SpotsError
        The file has no such objects, is not GeoJSON, has invalid coordinates, or is so large or
        its outlines cross so often that reading it would take gigabytes.
    """
    try:
        document = json.loads(_read_geojson_text(path))
        with np.errstate(invalid="ignore"):  # finite coordinates are checked below
            features = [_parse_feature(n) for n in _iterate_features(document)]
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except MemoryError:
        raise _geojson_too_large_error(path) from None
    except _PARSE_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as GeoJSON; export it from QuPath with "
            "File > Export objects as GeoJSON."
        ) from error
    features = [feature for feature in features if not feature[0].geometry.is_empty]
    ignored = [region for region, _, is_ignored in features if is_ignored]
    regions = select_objects(
        [(region, kind) for region, kind, is_ignored in features if not is_ignored],
        objects,
        path.name,
        note,
    )
    regions_and_ignored = [*regions, *ignored]
    geometries = [region.geometry for region in regions_and_ignored]
    xy = shapely.get_coordinates(geometries)
    if not np.isfinite(xy).all():
        raise SpotsError(f"{path.name} has coordinates that are not finite numbers.")
    if len(xy) and np.abs(xy).max() > MAX_COORDINATE_PX:
        raise SpotsError(
            f"{path.name} has coordinates beyond any slide; they must be level-0 pixels."
        )
    if has_too_many_crossings(geometries):
        raise SpotsError(
            f"The outlines in {path.name} cross themselves or each other too often; "
            "export fewer objects, or simplify them in QuPath."
        )
    regions = [_repair_region(region) for region in regions]
    return tuple(cut_out_ignored(regions, ignored, path.name, note))


def _read_geojson_text(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                data = unpacked.read(MAX_GEOJSON_BYTES + 1)
        elif start == b"PK\x03\x04":
            data = _unzip_geojson(file.read(MAX_GEOJSON_BYTES + 1), path)
        else:
            data = file.read(MAX_GEOJSON_BYTES + 1)
    # Every list and number becomes a Python object: the memory is estimated before parsing.
    if (
        len(data) > MAX_GEOJSON_BYTES
        or data.count(b"[") > MAX_GEOJSON_LISTS
        or data.count(b"{") > MAX_GEOJSON_OBJECTS
        or data.count(b",") > MAX_GEOJSON_VALUES
    ):
        raise _geojson_too_large_error(path)
    return data.decode("utf-8-sig")


def _unzip_geojson(packed: bytes, path: Path) -> bytes:
    """Unpack the first GeoJSON of a zip archive of QuPath."""
    if len(packed) > MAX_GEOJSON_BYTES:
        raise _geojson_too_large_error(path)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        names = [n for n in archive.namelist() if n.lower().endswith((".geojson", ".json"))]
        if not names:
            raise ValueError("no GeoJSON in the archive")
        with archive.open(names[0]) as member:
            return member.read(MAX_GEOJSON_BYTES + 1)


def _geojson_too_large_error(path: Path) -> SpotsError:
    return SpotsError(
        f"{path.name} holds too many points (at most {MAX_GEOJSON_LISTS:,}, and "
        f"{MAX_GEOJSON_BYTES >> 20} MB); export annotations only, without cells, or simplify them."
    )


def _iterate_features(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the features and bare geometries of a document."""
    if isinstance(node, list):
        for item in node:
            yield from _iterate_features(item)
    elif isinstance(node, dict) and node.get("type") == "FeatureCollection":
        yield from _iterate_features(node["features"])
    elif isinstance(node, dict):
        yield node
    elif node is not None:
        raise TypeError(f"unexpected {type(node).__name__} in GeoJSON")


def _parse_feature(node: dict[str, Any]) -> tuple[NamedRegion, RegionObjects, bool]:
    """Return an object, its type, and whether QuPath ignores its class.

    It is empty without a geometry (QuPath's root), and where a core is missing.
    """
    if node.get("type") != "Feature":
        return NamedRegion(_parse_geometry(node)), RegionObjects.annotation, False
    properties = node.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    geometry_node = node["geometry"]
    is_empty = geometry_node is None or properties.get("isMissing") is True
    geometry = shapely.Point() if is_empty else _parse_geometry(geometry_node)
    class_node = properties.get("classification")
    class_node = class_node if isinstance(class_node, dict) else {"name": class_node}
    class_name = class_node.get("name") or class_node.get("names")
    region = NamedRegion(
        geometry,
        _clean_name(properties.get("name")),
        _clean_name(class_name),
        _parse_color(properties.get("color"), properties.get("colorRGB"))
        or _parse_color(class_node.get("color"), class_node.get("colorRGB")),
    )
    return region, object_type(node, properties), is_ignored_class(class_name)


def _parse_geometry(node: Any) -> BaseGeometry:
    if not isinstance(node, dict) or node.get("type") not in _GEOMETRY_TYPES:
        raise TypeError("no geometry")
    return shapely.force_2d(shape(node))


def _clean_name(value: Any) -> str:
    """Clean a name; newer versions of QuPath list the parts of a derived classification."""
    if isinstance(value, list):
        value = ": ".join(str(v) for v in value[:8])
    return " ".join(value.split())[:80] if isinstance(value, str) else ""


def _parse_color(channels: Any, packed: Any) -> tuple[int, int, int] | None:
    """Parse [r, g, b], or Java's packed ARGB as older versions wrote it."""
    if isinstance(channels, int) and not isinstance(channels, bool):
        packed = channels
    if isinstance(channels, list) and len(channels) >= 3:
        numbers = channels[:3]
        if all(isinstance(p, int | float) and 0 <= p <= 255 for p in numbers):
            red, green, blue = (round(p) for p in numbers)
            return red, green, blue
    if isinstance(packed, int) and not isinstance(packed, bool) and abs(packed) < 2**32:
        return (packed >> 16) & 255, (packed >> 8) & 255, packed & 255
    return None


def _repair_region(region: NamedRegion) -> NamedRegion:
    geometry = region.geometry
    if geometry.geom_type not in ("Polygon", "MultiPolygon") or geometry.is_valid:
        return region
    return NamedRegion(
        to_valid_polygons(geometry), region.name, region.classification, region.color
    )

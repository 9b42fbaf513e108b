"""Read regions of interest from files: QuPath's GeoJSON or a mask image of the slide.

QuPath exports a FeatureCollection, an array of Features or a single one, plain, in gzip or in
zip; https://qupath.readthedocs.io (Exporting annotations). Coordinates are level-0 px.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import box
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .masks import LabelMask, is_mask_file, mask_scale, polygons_from_mask, read_mask
from .polygons import (
    combine_with_holes,
    ellipse_from_corners,
    has_too_many_crossings,
    region_from_shapes,
    to_valid_polygons,
    union_polygons,
)

MAX_GEOJSON_BYTES = 256 << 20
MAX_GEOJSON_LISTS = 5_000_000  # every point is one; as Python objects so many take about 1 GB
MAX_GEOJSON_OBJECTS = 1_000_000
MAX_GEOJSON_VALUES = 25_000_000
MAX_COORDINATE_PX = 1e8  # no slide is as wide

# what json, gzip, zip and shapely raise on files that are something else, or are malformed
_PARSE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # RecursionError, and what zip says of a password
    zlib.error,
    zipfile.BadZipFile,
    ShapelyError,
)
_DETECTION_TYPES = (
    "cell",
    "detection",
    "tile",
)  # QuPath's kinds of objects that lie inside annotations
_GEOMETRY_TYPES = (
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
)


@dataclass(frozen=True)
class NamedRegion:
    """One object of a file.

    geometry : level-0 px, x first; polygons are valid. May be of any kind, lines and points too.
    name, classification : "" when there is none.
    colour : red, green, blue, 0 to 255; None when the file says nothing.
    """

    geometry: BaseGeometry
    name: str = ""
    classification: str = ""
    colour: tuple[int, int, int] | None = None

    @property
    def label(self) -> str:
        """What to write beside it: ``name (classification)``, or the one that there is."""
        if self.name and self.classification:
            return f"{self.name} ({self.classification})"
        return self.name or self.classification


def read_geojson_regions(path: Path) -> tuple[NamedRegion, ...]:
    """The annotations of a file; where it holds none, its detections, cells or tiles.

    Raises SpotsError naming the file when it is not GeoJSON, holds nothing, or is so large or so
    tangled that reading it would take gigabytes.
    """
    try:
        document = json.loads(_read_geojson_text(path))
        with np.errstate(invalid="ignore"):  # coordinates that are not finite are told below
            objects = [_parse_feature(n) for n in _iterate_features(document)]
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except MemoryError:
        raise _geojson_too_large_error(path) from None
    except _PARSE_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as GeoJSON; export it from QuPath with "
            "File > Export objects as GeoJSON."
        ) from error
    found = [(region, kind) for region, kind in objects if not region.geometry.is_empty]
    annotations = [region for region, kind in found if kind not in _DETECTION_TYPES]
    chosen = annotations or [region for region, _ in found]
    geometries = [region.geometry for region in chosen]
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
    return tuple(_repair_region(region) for region in chosen)


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
    # Every list and number becomes an object: what they will take is known before it is taken.
    if (
        len(data) > MAX_GEOJSON_BYTES
        or data.count(b"[") > MAX_GEOJSON_LISTS
        or data.count(b"{") > MAX_GEOJSON_OBJECTS
        or data.count(b",") > MAX_GEOJSON_VALUES
    ):
        raise _geojson_too_large_error(path)
    return data.decode("utf-8-sig")


def _unzip_geojson(packed: bytes, path: Path) -> bytes:
    """The first GeoJSON of an archive as QuPath compresses its exports."""
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
    """Features and bare geometries of a document."""
    if isinstance(node, list):
        for item in node:
            yield from _iterate_features(item)
    elif isinstance(node, dict) and node.get("type") == "FeatureCollection":
        yield from _iterate_features(node["features"])
    elif isinstance(node, dict):
        yield node
    elif node is not None:
        raise TypeError(f"unexpected {type(node).__name__} in GeoJSON")


def _parse_feature(node: dict[str, Any]) -> tuple[NamedRegion, str]:
    """An object and its kind; without a geometry (QuPath's root) it is empty."""
    if node.get("type") != "Feature":
        return NamedRegion(_parse_geometry(node)), ""
    about = node.get("properties")
    about = about if isinstance(about, dict) else {}
    drawn = node["geometry"]
    geometry = shapely.Point() if drawn is None else _parse_geometry(drawn)
    of_class = about.get("classification")
    of_class = of_class if isinstance(of_class, dict) else {"name": of_class}
    region = NamedRegion(
        geometry,
        _clean_name(about.get("name")),
        _clean_name(of_class.get("name") or of_class.get("names")),
        _parse_colour(about.get("color"), about.get("colorRGB"))
        or _parse_colour(of_class.get("color"), of_class.get("colorRGB")),
    )
    kind = about.get("objectType") or about.get("object_type")
    return region, kind if isinstance(kind, str) else ""


def _parse_geometry(node: Any) -> BaseGeometry:
    if not isinstance(node, dict) or node.get("type") not in _GEOMETRY_TYPES:
        raise TypeError("no geometry")
    return shapely.force_2d(shape(node))


def _clean_name(value: Any) -> str:
    """A name; newer versions of QuPath list the parts of a derived classification."""
    if isinstance(value, list):
        value = ": ".join(str(v) for v in value[:8])
    return " ".join(value.split())[:80] if isinstance(value, str) else ""


def _parse_colour(parts: Any, packed: Any) -> tuple[int, int, int] | None:
    """From [r, g, b], or from Java's packed ARGB as older versions wrote it."""
    if isinstance(parts, int) and not isinstance(parts, bool):
        packed = parts
    if isinstance(parts, list) and len(parts) >= 3:
        numbers = parts[:3]
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
        to_valid_polygons(geometry), region.name, region.classification, region.colour
    )


__all__ = [
    "NamedRegion",
    "combine_with_holes",
    "ellipse_from_corners",
    "read_geojson",
    "read_named_regions",
    "read_regions",
    "region_from_shapes",
    "to_valid_polygons",
]


def read_regions(
    path: str | Path, width: int | None = None, height: int | None = None
) -> BaseGeometry:
    """The regions of a file in level-0 px, joined: GeoJSON (also .gz and .zip), PNG or TIFF.

    width, height : of the slide in level-0 px; a mask may have any resolution and is laid over
    the whole slide (needed for masks only).

    Raises SpotsError naming the file and what to do.
    """
    return union_regions(read_named_regions(path, width, height, merge_labels=True), Path(path))


def read_geojson(path: str | Path) -> BaseGeometry:
    """The polygons of a GeoJSON file in level-0 px, as QuPath writes them, joined.

    Accepts a FeatureCollection, a Feature, a bare geometry or a list of these.
    Raises SpotsError naming the file when it is not GeoJSON or has no polygon.
    """
    return union_regions(read_geojson_regions(Path(path)), Path(path))


def union_regions(regions: tuple[NamedRegion, ...], path: Path) -> BaseGeometry:
    """One region of all; lines and points enclose nothing."""
    region = union_polygons([r.geometry for r in regions])
    if region.is_empty:
        raise SpotsError(
            f"{path.name} holds no polygon; export annotations as GeoJSON (in QuPath: "
            "File > Export objects as GeoJSON)."
        )
    return region


def read_named_regions(
    path: str | Path,
    width: int | None = None,
    height: int | None = None,
    merge_labels: bool = False,
) -> tuple[NamedRegion, ...]:
    """The regions of a file one by one, with names and colours, for showing.

    one : a mask's labels need not be told apart. Otherwise as `read_regions`.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except OSError as error:
        raise SpotsError(f"{path.name} could not be read ({error.strerror or error}).") from error
    if start[:3] == b"\xff\xd8\xff":
        raise SpotsError(f"{path.name} is a JPEG, which blurs a mask; save it as PNG or TIFF.")
    if not is_mask_file(start):
        return read_geojson_regions(path)
    if width is None or height is None:
        raise SpotsError(f"{path.name} is a mask; open its slide first.")
    return _regions_from_mask(read_mask(path), width, height, path.name, merge_labels)


def _regions_from_mask(
    mask: LabelMask, width: int, height: int, name: str, merge_labels: bool
) -> tuple[NamedRegion, ...]:
    x, y = mask_scale(mask.shape, width, height, name)
    labels = mask.labels != 0 if merge_labels else mask.labels
    found = polygons_from_mask(labels, (x * mask.stride, y * mask.stride), name)
    if not found:
        raise SpotsError(f"{name} is empty: every pixel is 0; export the mask again.")
    slide = box(0, 0, width, height)
    made = []
    for label, region in found.items():
        colour = ((label >> 16) & 255, (label >> 8) & 255, label & 255) if mask.is_rgb else None
        title = f"label {label}" if len(found) > 1 and not mask.is_rgb else ""
        # sizes are rounded: the last row of pixels may reach beyond the slide
        made.append(NamedRegion(to_valid_polygons(region.intersection(slide)), title, "", colour))
    return tuple(made)

"""Read regions of interest from files: QuPath's GeoJSON or a mask image of the slide.

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
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from shapely import box
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .masks import LabelMask, is_mask_file, mask_scale, polygons_from_mask, read_mask
from .object_types import RegionObjects, is_ignored_class, object_type
from .polygons import (
    has_too_many_crossings,
    to_valid_polygons,
    union_polygons,
)
from .qupath_objects import NamedRegion, NoteCallback, cut_out_ignored, select_objects

__all__ = ["NamedRegion", "RegionObjects", "read_named_regions", "read_regions"]

MAX_GEOJSON_BYTES = 256 << 20
MAX_GEOJSON_LISTS = 5_000_000  # every point is a list; as Python objects these take about 1 GB
MAX_GEOJSON_OBJECTS = 1_000_000
MAX_GEOJSON_VALUES = 25_000_000
MAX_COORDINATE_PX = 1e8  # larger than any slide

Box = tuple[int, int, int, int]  # left, top, width, height


class SlideArea(Protocol):
    """Scan area and glass of a slide in level-0 px; the one that is open begins at (0, 0)."""

    @property
    def scan(self) -> Box: ...
    @property
    def glass(self) -> Box: ...


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


def _ignore_note(sentence: str) -> None:
    """Take a note that nobody reads."""


def read_geojson_regions(
    path: Path, objects: RegionObjects | None = None, note: NoteCallback = _ignore_note
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


def read_regions(
    path: str | Path,
    area: SlideArea | None = None,
    objects: RegionObjects | None = None,
    note: NoteCallback = _ignore_note,
) -> BaseGeometry:
    """Read the union of the regions of a file in level-0 px.

    Parameters
    ----------
    path
        GeoJSON (plain, .gz or .zip), PNG or TIFF.
    area
        `Slide.scan_area`, needed for masks. GeoJSON counts from the scan area, as QuPath does. A
        mask may have any resolution and covers the scan area or the glass: its proportions
        decide, and the frame that is open where both have the same.
    objects
        As for `read_geojson_regions`.
    note
        Called with sentences for the user.

    Raises
    ------
    SpotsError
        The file cannot be read or has no region.
    """
    regions = read_named_regions(path, area, True, objects, note)
    return union_regions(regions, Path(path))


def union_regions(regions: tuple[NamedRegion, ...], path: Path) -> BaseGeometry:
    """Return the union of regions. Raises SpotsError if none is a polygon."""
    region = union_polygons([r.geometry for r in regions])
    if region.is_empty:
        raise SpotsError(
            f"{path.name} holds no polygon; export annotations as GeoJSON (in QuPath: "
            "File > Export objects as GeoJSON)."
        )
    return region


def read_named_regions(
    path: str | Path,
    area: SlideArea | None = None,
    merge_labels: bool = False,
    objects: RegionObjects | None = None,
    note: NoteCallback = _ignore_note,
) -> tuple[NamedRegion, ...]:
    """Read the regions of a file separately, with names and colors.

    Parameters
    ----------
    path, area, objects, note
        As for `read_regions`.
    merge_labels
        Do not distinguish the labels of a mask.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except OSError as error:
        raise SpotsError(f"{path.name} could not be read ({error.strerror or error}).") from error
    if magic[:3] == b"\xff\xd8\xff":
        raise SpotsError(f"{path.name} is a JPEG, which blurs a mask; save it as PNG or TIFF.")
    if not is_mask_file(magic):
        regions = read_geojson_regions(path, objects, note)
        origin = (0, 0) if area is None else area.scan[:2]
        if origin == (0, 0):
            return regions
        return tuple(replace(r, geometry=translate(r.geometry, *origin)) for r in regions)
    if area is None:
        raise SpotsError(f"{path.name} is a mask; open its slide first.")
    return _regions_from_mask(read_mask(path), area, path.name, merge_labels, note)


def _regions_from_mask(
    mask: LabelMask, area: SlideArea, name: str, merge_labels: bool, note: NoteCallback
) -> tuple[NamedRegion, ...]:
    left, top, (x, y) = _place_mask(mask.shape, area, name, note)
    labels = mask.labels != 0 if merge_labels else mask.labels
    polygons = polygons_from_mask(labels, (x * mask.stride, y * mask.stride), name)
    if not polygons:
        raise SpotsError(f"{name} is empty: every pixel is 0; export the mask again.")
    slide = box(0, 0, *_open_size(area))
    regions = []
    for label, polygon in polygons.items():
        color = ((label >> 16) & 255, (label >> 8) & 255, label & 255) if mask.is_rgb else None
        title = f"label {label}" if len(polygons) > 1 and not mask.is_rgb else ""
        # Sizes are rounded: the last row of pixels may extend beyond the slide.
        geometry = to_valid_polygons(translate(polygon, left, top).intersection(slide))
        if not geometry.is_empty:  # of a mask of the glass, beside the scan area that is open
            regions.append(NamedRegion(geometry, title, "", color))
    if not regions:
        raise SpotsError(f"{name} has no region on the slide; export the mask again.")
    return tuple(regions)


def _open_size(area: SlideArea) -> tuple[int, int]:
    """Return width and height of the image that is open: the area that begins at (0, 0)."""
    return area.scan[2:] if area.scan[:2] == (0, 0) else area.glass[2:]


def _place_mask(
    shape: tuple[int, int], area: SlideArea, name: str, note: NoteCallback
) -> tuple[int, int, tuple[float, float]]:
    """Return left and top of the area that a mask covers, and level-0 px per px of the mask.

    Raises
    ------
    SpotsError
        The mask has neither the proportions of the scan area nor those of the glass.
    """
    areas = {"scan area": area.scan, "glass": area.glass}
    is_glass_open = _open_size(area) != area.scan[2:]
    names = ["glass", "scan area"] if is_glass_open else ["scan area", "glass"]
    if area.scan == area.glass:
        return 0, 0, mask_scale(shape, *area.scan[2:], name)
    exact = [n for n in names if areas[n][:1:-1] == tuple(shape)]
    fitting: dict[str, tuple[float, float]] = {}
    for candidate in exact or names:
        try:
            fitting[candidate] = mask_scale(shape, *areas[candidate][2:], name)
        except SpotsError:
            continue
    sizes = " and ".join(f"the {n} ({areas[n][2]:,} x {areas[n][3]:,} px)" for n in names)
    if not fitting:
        raise SpotsError(
            f"{name} is {shape[1]:,} x {shape[0]:,} px, which are the proportions of neither "
            f"{sizes.replace(' and ', ' nor ')}; export the mask of one of them."
        )
    chosen = next(iter(fitting))
    if len(fitting) > 1:
        other = "without" if is_glass_open else "with"
        note(
            f"{name} has the proportions of both {sizes}, and is taken as a mask of the {chosen}; "
            f"if that is wrong, open the slide {other} the whole glass"
        )
    return *areas[chosen][:2], fitting[chosen]

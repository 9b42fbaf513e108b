"""Regions of interest out of files: GeoJSON of QuPath's, or a mask image of the slide."""

from __future__ import annotations

from pathlib import Path

from shapely import box
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .geojson import NamedRegion, read_geojson_regions
from .mask_file import LabelMask, is_mask_file, read_mask
from .masks import polygons_from_mask, mask_scale
from .polygons import combine_with_holes, ellipse_from_corners, region_from_shapes, union_polygons, to_valid_polygons

__all__ = [
    "NamedRegion",
    "combine_with_holes",
    "ellipse_from_corners",
    "region_from_shapes",
    "read_named_regions",
    "to_valid_polygons",
    "read_geojson",
    "read_regions",
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
    path: str | Path, width: int | None = None, height: int | None = None, merge_labels: bool = False
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


def _regions_from_mask(mask: LabelMask, width: int, height: int, name: str, merge_labels: bool) -> tuple[NamedRegion, ...]:
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

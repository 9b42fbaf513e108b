"""Regions of interest out of files: GeoJSON of QuPath's, or a mask image of the slide."""

from __future__ import annotations

from pathlib import Path

from shapely import box
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .geojson import NamedRegion, read_objects
from .mask_file import Mask, is_mask, read_mask
from .masks import mask_regions, mask_scale
from .polygons import combine, ellipse, from_drawn, joined, polygonal

__all__ = [
    "NamedRegion",
    "combine",
    "ellipse",
    "from_drawn",
    "named_regions",
    "polygonal",
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
    return joined_areas(named_regions(path, width, height, one=True), Path(path))


def read_geojson(path: str | Path) -> BaseGeometry:
    """The polygons of a GeoJSON file in level-0 px, as QuPath writes them, joined.

    Accepts a FeatureCollection, a Feature, a bare geometry or a list of these.
    Raises SpotsError naming the file when it is not GeoJSON or has no polygon.
    """
    return joined_areas(read_objects(Path(path)), Path(path))


def joined_areas(regions: tuple[NamedRegion, ...], path: Path) -> BaseGeometry:
    """One region of all; lines and points enclose nothing."""
    region = joined([r.geometry for r in regions])
    if region.is_empty:
        raise SpotsError(
            f"{path.name} holds no polygon; export annotations as GeoJSON (in QuPath: "
            "File > Export objects as GeoJSON)."
        )
    return region


def named_regions(
    path: str | Path, width: int | None = None, height: int | None = None, one: bool = False
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
    if not is_mask(start):
        return read_objects(path)
    if width is None or height is None:
        raise SpotsError(f"{path.name} is a mask; open its slide first.")
    return _of_mask(read_mask(path), width, height, path.name, one)


def _of_mask(mask: Mask, width: int, height: int, name: str, one: bool) -> tuple[NamedRegion, ...]:
    x, y = mask_scale(mask.shape, width, height, name)
    labels = mask.labels != 0 if one else mask.labels
    found = mask_regions(labels, (x * mask.step, y * mask.step), name)
    if not found:
        raise SpotsError(f"{name} is empty: every pixel is 0; export the mask again.")
    slide = box(0, 0, width, height)
    made = []
    for label, region in found.items():
        colour = ((label >> 16) & 255, (label >> 8) & 255, label & 255) if mask.coloured else None
        title = f"label {label}" if len(found) > 1 and not mask.coloured else ""
        # sizes are rounded: the last row of pixels may reach beyond the slide
        made.append(NamedRegion(polygonal(region.intersection(slide)), title, "", colour))
    return tuple(made)

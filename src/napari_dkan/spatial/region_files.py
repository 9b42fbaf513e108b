"""Read regions of interest from files: QuPath's GeoJSON or a mask image of the slide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from shapely import box
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError
from .geojson_regions import read_geojson_regions
from .masks import LabelMask, is_mask_file, mask_scale, polygons_from_mask, read_mask
from .object_types import RegionObjects
from .polygons import to_valid_polygons, union_polygons
from .qupath_objects import NamedRegion, NoteCallback, ignore_note

__all__ = ["NamedRegion", "RegionObjects", "read_named_regions", "read_regions"]

Box = tuple[int, int, int, int]  # left, top, width, height


class SlideArea(Protocol):
    """Scan area and glass of a slide in level-0 px; the one that is open begins at (0, 0)."""

    @property
    def scan(self) -> Box: ...
    @property
    def glass(self) -> Box: ...


def read_regions(
    path: str | Path,
    area: SlideArea | None = None,
    objects: RegionObjects | None = None,
    note: NoteCallback = ignore_note,
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
    note: NoteCallback = ignore_note,
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

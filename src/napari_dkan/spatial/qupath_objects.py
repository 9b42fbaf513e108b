"""Choose among the objects of a QuPath file: annotations, detections, cores, ignored classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import shapely
from shapely import union_all
from shapely.geometry.base import BaseGeometry

from ..errors import SpotsError, UnclearRegionsError
from .object_types import DETECTIONS, RegionObjects
from .polygons import to_valid_polygons

NoteCallback = Callable[[str], None]


def ignore_note(sentence: str) -> None:
    """Take a note that nobody reads."""


_REGION_CLASS = "Region*"  # outlines an area without naming it; it is not cut out


@dataclass(frozen=True)
class NamedRegion:
    """One object of a file.

    Attributes
    ----------
    geometry
        In level-0 px (x, y), of any type, lines and points too; polygons are valid.
    name, classification
        "" where there is none.
    color
        Red, green, blue, 0 to 255; None where the file has none.
    """

    geometry: BaseGeometry
    name: str = ""
    classification: str = ""
    color: tuple[int, int, int] | None = None

    @property
    def label(self) -> str:
        """The text shown with the region: ``name (classification)``, or one of them."""
        if self.name and self.classification:
            return f"{self.name} ({self.classification})"
        return self.name or self.classification


def select_objects(
    objects: Sequence[tuple[NamedRegion, RegionObjects]],
    wanted: RegionObjects | None,
    name: str,
    note: NoteCallback,
) -> list[NamedRegion]:
    """Return the objects that are regions.

    Parameters
    ----------
    objects
        Each with its type, none of an ignored class.
    wanted
        None for annotations; in a file without any its detections or its cores, if it has only
        one of them.
    name
        Of the file.
    note
        Called with a sentence about the objects that are left out.

    Raises
    ------
    UnclearRegionsError
        The file has both detections and cores.
    SpotsError
        It has none that is wanted.
    """
    if wanted is RegionObjects.all:
        return [region for region, _ in objects]
    types = {kind for _, kind in objects}
    count = Counter(str(kind) for _, kind in objects)
    found = ", ".join(f"{n:,} {kind}" for kind, n in count.items())
    if wanted is not None:
        taken = DETECTIONS if wanted is RegionObjects.detection else (wanted,)
    elif RegionObjects.annotation in types or not types:
        taken = (RegionObjects.annotation,)
    elif RegionObjects.tma_core not in types:
        taken = DETECTIONS
    elif len(types) == 1:
        taken = (RegionObjects.tma_core,)
    else:
        kinds = RegionObjects.tma_core, RegionObjects.detection
        finding = f"{name} has no annotation but {found}."
        raise UnclearRegionsError(finding, tuple(str(kind) for kind in kinds))
    if objects and not types & set(taken):
        raise SpotsError(f"{name} has no {wanted}; it holds {found}.")
    left_out = [f"{n:,} {kind}" for kind, n in count.items() if RegionObjects(kind) not in taken]
    if left_out:
        note(f"{name}: {', '.join(left_out)} left out; regions are {' and '.join(taken)}s")
    return [region for region, kind in objects if kind in taken]


def cut_out_ignored(
    regions: Sequence[NamedRegion], ignored: Sequence[NamedRegion], name: str, note: NoteCallback
) -> list[NamedRegion]:
    """Return regions without the area of objects of ignored classes, such as ``Ignore*``.

    Objects of the class ``Region*`` are left out and not cut out.

    Raises
    ------
    SpotsError
        Nothing is left.
    """
    if not ignored:
        return list(regions)
    classes = ", ".join(sorted({region.classification for region in ignored}))
    if not regions:
        raise SpotsError(
            f"All objects of {name} have classes that QuPath ignores ({classes}); give them a "
            "class without * at its end."
        )
    area = union_all(
        [to_valid_polygons(r.geometry) for r in ignored if r.classification != _REGION_CLASS]
    )
    kept = [_subtract(region, area) for region in regions]
    kept = [region for region in kept if not region.geometry.is_empty]
    if not kept:
        raise SpotsError(f"The regions of {name} lie inside its ignored classes ({classes}).")
    note(f"{name}: {len(ignored):,} objects of ignored classes ({classes}) are no regions")
    return kept


def _subtract(region: NamedRegion, area: BaseGeometry) -> NamedRegion:
    geometry = region.geometry
    if not shapely.intersects(geometry, area):
        return region
    rest = geometry.difference(area)
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        rest = to_valid_polygons(rest)
    return NamedRegion(rest, region.name, region.classification, region.color)

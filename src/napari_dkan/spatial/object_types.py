"""Types and ignored classes of QuPath's objects; light, as the command line imports it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class RegionObjects(StrEnum):
    """Which objects of a GeoJSON file are regions."""

    annotation = "annotation"
    detection = "detection"  # cells and tiles too
    cell = "cell"
    tile = "tile"
    tma_core = "tma_core"
    all = "all"


DETECTIONS = (RegionObjects.detection, RegionObjects.cell, RegionObjects.tile)
# What files call the types; QuPath 0.2 writes the names of its Java classes as ids.
_TYPES = {
    "": RegionObjects.annotation,
    "annotation": RegionObjects.annotation,
    "pathannotationobject": RegionObjects.annotation,
    "detection": RegionObjects.detection,
    "pathdetectionobject": RegionObjects.detection,
    "cell": RegionObjects.cell,
    "pathcellobject": RegionObjects.cell,
    "tile": RegionObjects.tile,
    "pathtileobject": RegionObjects.tile,
    "tma_core": RegionObjects.tma_core,
    "tma core": RegionObjects.tma_core,
    "tmacoreobject": RegionObjects.tma_core,
}


def object_type(node: dict[str, Any], properties: dict[str, Any]) -> RegionObjects:
    """Return the type of a GeoJSON feature; annotation where it has none or an unknown one."""
    for value in (properties.get("objectType"), properties.get("object_type"), node.get("id")):
        if isinstance(value, str) and value.lower() in _TYPES:
            return _TYPES[value.lower()]
    return RegionObjects.annotation


def is_ignored_class(name: Any) -> bool:
    """Whether QuPath ignores a class: its name, or the last part of it, ends in ``*``."""
    last = name[-1] if isinstance(name, list) and name else name
    return isinstance(last, str) and last.rstrip().endswith("*")

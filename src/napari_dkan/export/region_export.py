"""Write regions with their measurements: a table, or GeoJSON for QuPath."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from shapely.affinity import translate
from shapely.geometry import mapping

from ..atomic_write import atomic_write, write_json
from ..spatial.region_files import NamedRegion
from .geojson_export import VALUE_DIGITS, make_feature


@dataclass(frozen=True, eq=False)
class MeasuredRegions:
    """R regions of one slide and their measurements.

    Attributes
    ----------
    regions : tuple of NamedRegion
        In level-0 px of the slide as it is open.
    measurements : tuple of mapping
        Of each region, numbers by name, the same names in all; NaN where there is none.
    scan_origin : tuple of int
        Corner of the scan area in level-0 px, from which QuPath counts.
    provenance : mapping
        Version, checkpoint, slide and parameters, as plain JSON.
    """

    regions: tuple[NamedRegion, ...]
    measurements: tuple[Mapping[str, float], ...]
    scan_origin: tuple[int, int]
    provenance: Mapping[str, Any]


def write_region_table(path: str | Path, measured: MeasuredRegions) -> Path:
    """Write ``path`` (CSV, a row per region) and ``path.json`` with the provenance.

    Columns: region, class, then the measurements with six significant digits, empty where there is
    none.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    names = list(measured.measurements[0]) if measured.measurements else []
    write_json(f"{path}.json", dict(measured.provenance), allow_nan=True)
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["region", "class", *names])
        for region, values in zip(measured.regions, measured.measurements, strict=True):
            cells = [f"{values[n]:.6g}" if np.isfinite(values[n]) else "" for n in names]
            table.writerow([region.name, region.classification, *cells])
    return Path(path)


def write_region_geojson(path: str | Path, measured: MeasuredRegions) -> Path:
    """Write a FeatureCollection of annotations with measurements, with reproducible ids.

    Read by QuPath 0.4 to 0.6, as `write_geojson`; unknown values are left out.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    provenance = dict(measured.provenance)
    namespace = uuid5(NAMESPACE_URL, json.dumps(provenance, sort_keys=True, default=str))
    left, top = measured.scan_origin
    features = []
    for number, (region, values) in enumerate(
        zip(measured.regions, measured.measurements, strict=True)
    ):
        properties: dict[str, Any] = {"objectType": "annotation"}
        if region.name:
            properties["name"] = region.name
        if region.classification:
            properties["classification"] = {"name": region.classification}
            if region.color is not None:
                properties["classification"]["color"] = list(region.color)
        elif region.color is not None:
            properties["color"] = list(region.color)
        properties["measurements"] = {
            name: round(float(value), VALUE_DIGITS)
            for name, value in values.items()
            if np.isfinite(value)
        }
        geometry = mapping(translate(region.geometry, -left, -top))
        features.append(make_feature(uuid5(namespace, f"region {number}"), geometry, properties))
    document = {"type": "FeatureCollection", "napari_dkan": provenance, "features": features}
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        json.dump(document, file, allow_nan=False, default=str)
    return Path(path)

"""Write tiles and regions as GeoJSON for QuPath.

Format: QuPath 0.4 to 0.6 (GsonTools, QuPathTypeAdapters and ROITypeAdapters): features with a
UUID, ``objectType``, a ``classification`` of name and color, and ``measurements`` by name;
coordinates in level-0 px with two decimals; ``metadata`` is read from 0.5 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from ..atomic_write import atomic_write
from .anndata_export import REASON_SEPARATOR
from .saved_result import (
    SavedResult,
    build_export_provenance,
    find_scan_origin,
    format_gene_label,
    format_signature,
    select_symbols,
)

PREDICTED_CLASS = {"name": "Predicted expression", "color": [0, 114, 178]}
UNRELIABLE_CLASS = {"name": "Unreliable prediction", "color": [213, 94, 0]}
REGION_CLASS = {"name": "Predicted region", "color": [230, 159, 0]}
VALUE_DIGITS = 5


def write_geojson(
    path: str | Path, result: SavedResult, genes: Sequence[str] | None = None
) -> Path:
    """Write a FeatureCollection with reproducible ids.

    Tiles of a grid are QuPath tiles, other spots are detections, and regions are locked
    annotations. Positions count from the scan area, as QuPath's do.

    Raises
    ------
    OutputError
        When the file cannot be written, or the scan area is not known; see `find_scan_origin`.
    SpotsError
        When a gene is not in the prediction.
    """
    symbols = select_symbols(result.prediction, genes)
    provenance = build_export_provenance(result, symbols)
    scan_origin = find_scan_origin(result, path)
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write('{"type": "FeatureCollection",\n"napari_dkan": ')
        file.write(json.dumps(provenance))
        file.write(',\n"features": [')
        separator = "\n"
        for feature in _iter_features(result, symbols, provenance, scan_origin):
            file.write(separator + json.dumps(feature, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")
    return Path(path)


def _iter_features(
    result: SavedResult,
    symbols: Sequence[str],
    provenance: dict[str, Any],
    scan_origin: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    from shapely.affinity import translate
    from shapely.geometry import mapping

    seed = json.dumps([result.slide_record.fingerprint, provenance], sort_keys=True)
    id_namespace = uuid5(NAMESPACE_URL, seed)
    metadata = {k: str(v) for k, v in provenance.items() if isinstance(v, str | int | float)}
    left, top = scan_origin  # QuPath counts from there
    for i, polygon in enumerate(result.region_polygons):
        polygon = translate(polygon, -left, -top)
        yield make_feature(
            uuid5(id_namespace, f"region {i}"),
            mapping(polygon),
            {
                "objectType": "annotation",
                "name": f"Region {i + 1}",
                "classification": REGION_CLASS,
                "isLocked": True,
                "metadata": metadata,
            },
        )
    yield from _iter_tiles(result, symbols, id_namespace, scan_origin)


def _iter_tiles(
    result: SavedResult,
    symbols: Sequence[str],
    id_namespace: UUID,
    scan_origin: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    prediction, reliability = result.prediction, result.reliability
    spots, grid = prediction.target.spots, prediction.target.grid
    spot_labels = spots.labels
    gene_labels = [format_gene_label(prediction, g) for g in symbols]
    values = np.stack([prediction.get_gene_values(g) for g in symbols], axis=1).astype(np.float64)
    rounded = np.round(values, VALUE_DIGITS)
    side = grid.pitch if grid else prediction.spot_diameter_um / result.slide_record.mpp
    signature = format_signature(result)
    predicted = prediction.predicted_mask
    in_scan = spots.xy - np.asarray(scan_origin)
    for i, (x, y) in enumerate(in_scan.tolist()):
        if not predicted[i]:
            continue
        row = zip(gene_labels, rounded[i].tolist(), strict=True)
        measurements = {name: value for name, value in row if np.isfinite(value)}
        metadata, classification = {"source": signature}, PREDICTED_CLASS
        if reliability is not None:
            score = float(reliability.score[i])
            if np.isfinite(score):
                measurements["Reliability"] = round(score, VALUE_DIGITS)
            classification = UNRELIABLE_CLASS if reliability.unreliable[i] else PREDICTED_CLASS
            if reasons := reliability.reasons(i):
                metadata["reliability"] = REASON_SEPARATOR.join(reasons)
        yield make_feature(
            uuid5(id_namespace, f"spot {i}"),
            _make_square(x, y, side) if grid else _make_disc(x, y, side),
            {
                "objectType": "tile" if grid else "detection",
                "name": spot_labels[i],
                "classification": classification,
                "measurements": measurements,
                "metadata": metadata,
            },
        )


def make_feature(id: UUID, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    """Make a GeoJSON feature; coordinates get two decimals."""
    geometry = {**geometry, "coordinates": _round_coordinates(geometry["coordinates"])}
    return {"type": "Feature", "id": str(id), "geometry": geometry, "properties": properties}


def _round_coordinates(coordinates: Any) -> Any:
    if isinstance(coordinates, float | int):
        return round(float(coordinates), 2)
    return [_round_coordinates(c) for c in coordinates]


def _make_square(x: float, y: float, side: float) -> dict[str, Any]:
    left, top, right, bottom = x - side / 2, y - side / 2, x + side / 2, y + side / 2
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [corners]}


def _make_disc(x: float, y: float, diameter: float) -> dict[str, Any]:
    """A polygon that QuPath reads as the ellipse in its bounding box."""
    angle = np.linspace(0, 2 * np.pi, 33)
    outline = np.stack([np.cos(angle), np.sin(angle)], axis=1) * diameter / 2 + (x, y)
    outline[-1] = outline[0]
    return {"type": "Polygon", "coordinates": [outline.tolist()], "isEllipse": True}

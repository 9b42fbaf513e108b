"""Tiles and regions for QuPath, as it writes them itself.

Format: QuPath 0.4 to 0.6 (its GsonTools, QuPathTypeAdapters and ROITypeAdapters): features with a
UUID, ``objectType``, a ``classification`` of name and colour, and ``measurements`` by name;
coordinates in level-0 px with two decimals; ``metadata`` is read from 0.5 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from ..files import written_whole
from .account import account, chosen, column, signature
from .anndata import REASONS
from .raster import diameter_of
from .saved import Saved

PREDICTED = {"name": "Predicted expression", "color": [0, 114, 178]}
UNRELIABLE = {"name": "Unreliable prediction", "color": [213, 94, 0]}
REGION = {"name": "Predicted region", "color": [230, 159, 0]}
DIGITS = 5


def write_geojson(path: str | Path, saved: Saved, genes: Sequence[str] | None = None) -> Path:
    """A FeatureCollection: each tile of a grid a tile, other spots detections, and what was
    drawn as locked annotations. The same result gives the same ids.

    Raises OutputError naming the file, SpotsError for an unknown gene.
    """
    symbols = chosen(saved.prediction, genes)
    told = account(saved, symbols)
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write('{"type": "FeatureCollection",\n"napari_dkan": ')
        file.write(json.dumps(told))
        file.write(',\n"features": [')
        before = "\n"
        for feature in _features(saved, symbols, told):
            file.write(before + json.dumps(feature, allow_nan=False))
            before = ",\n"
        file.write("\n]}\n")
    return Path(path)


def _features(
    saved: Saved, symbols: Sequence[str], told: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from shapely.geometry import mapping

    kin = uuid5(NAMESPACE_URL, json.dumps([saved.slide.fingerprint, told], sort_keys=True))
    said = {k: str(v) for k, v in told.items() if isinstance(v, str | int | float)}
    if saved.regions is not None:
        for i, part in enumerate(getattr(saved.regions, "geoms", [saved.regions])):
            yield _feature(
                uuid5(kin, f"region {i}"),
                mapping(part),
                {
                    "objectType": "annotation",
                    "name": f"Region {i + 1}",
                    "classification": REGION,
                    "isLocked": True,
                    "metadata": said,
                },
            )
    yield from _tiles(saved, symbols, kin)


def _tiles(saved: Saved, symbols: Sequence[str], kin: UUID) -> Iterator[dict[str, Any]]:
    prediction, judged = saved.prediction, saved.reliability
    spots, grid = prediction.target.spots, prediction.target.grid
    names = spots.names or tuple(f"spot{i}" for i in range(len(spots)))
    labels = [column(prediction, g) for g in symbols]
    values = np.stack([prediction.gene(g) for g in symbols], axis=1).astype(np.float64)
    rounded = np.round(values, DIGITS)
    side = grid.pitch if grid else diameter_of(prediction) / saved.slide.mpp
    by = signature(saved)
    done = prediction.done
    for i, (x, y) in enumerate(spots.xy.tolist()):
        if not done[i]:
            continue
        told = {n: v for n, v in zip(labels, rounded[i].tolist(), strict=True) if np.isfinite(v)}
        metadata, kind = {"source": by}, PREDICTED
        if judged is not None:
            score = float(judged.score[i])
            if np.isfinite(score):
                told["Reliability"] = round(score, DIGITS)
            kind = UNRELIABLE if judged.unreliable[i] else PREDICTED
            if reasons := judged.reasons(i):
                metadata["reliability"] = REASONS.join(reasons)
        yield _feature(
            uuid5(kin, f"spot {i}"),
            _square(x, y, side) if grid else _disc(x, y, side),
            {
                "objectType": "tile" if grid else "detection",
                "name": names[i],
                "classification": kind,
                "measurements": told,
                "metadata": metadata,
            },
        )


def _feature(id: UUID, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    geometry = {**geometry, "coordinates": _rounded(geometry["coordinates"])}
    return {"type": "Feature", "id": str(id), "geometry": geometry, "properties": properties}


def _rounded(coordinates: Any) -> Any:
    if isinstance(coordinates, float | int):
        return round(float(coordinates), 2)
    return [_rounded(c) for c in coordinates]


def _square(x: float, y: float, side: float) -> dict[str, Any]:
    left, top, right, bottom = x - side / 2, y - side / 2, x + side / 2, y + side / 2
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [corners]}


def _disc(x: float, y: float, diameter: float) -> dict[str, Any]:
    """A polygon that QuPath takes for the ellipse in its bounding box."""
    angle = np.linspace(0, 2 * np.pi, 33)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1) * diameter / 2 + (x, y)
    around[-1] = around[0]
    return {"type": "Polygon", "coordinates": [around.tolist()], "isEllipse": True}

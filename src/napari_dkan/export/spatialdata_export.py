"""Write a SpatialData store: tiles as shapes, genes as a table, an overview image of the slide.

Format: SpatialData 0.2 on Zarr 3 (spatialdata 0.5 and newer; images 0.3, shapes 0.3, tables 0.2).
The spatialdata library itself is not required, as it has many dependencies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from ..atomic_write import atomic_write_folder
from ..errors import OutputError
from .histology import SlideOverview
from .saved_result import (
    SavedResult,
    build_export_provenance,
    result_to_anndata,
    select_symbols,
)

if TYPE_CHECKING:
    import zarr
    from shapely.geometry.base import BaseGeometry


SHAPES_NAME, REGIONS_NAME, IMAGE_NAME, TABLE_NAME = "tiles", "regions", "slide", "table"
IMAGE_CHUNK_PX = 1024
CoordinateSystem = tuple[str, tuple[float, float]]  # its name, and its units per (x, y)


def write_spatialdata(
    path: str | Path, result: SavedResult, genes: Sequence[str] | None = None
) -> Path:
    """Write a new store.

    It has the shapes ``tiles`` (squares of a grid, else circles) and, if any, ``regions``, the
    table ``table`` that annotates the tiles, and the overview image ``slide``, whose attributes
    name the slide by path and fingerprint. Coordinate systems: ``global`` is level-0 px, ``um``
    micrometers.

    Raises
    ------
    OutputError
        When the path exists or cannot be written.
    SpotsError
        When a gene is not in the prediction.
    """
    import zarr

    prediction, mpp = result.prediction, result.slide_record.mpp
    symbols = select_symbols(prediction, genes)
    data = result_to_anndata(result)[:, list(symbols)].copy()
    del data.uns["spatial"]  # the overview is an image of the store
    provenance = build_export_provenance(result, symbols)
    with atomic_write_folder(path) as folder:
        root = zarr.create_group(folder, zarr_format=3, overwrite=True)
        root.attrs.update({"spatialdata_attrs": {"version": "0.2"}, "napari_dkan": provenance})
        systems: tuple[CoordinateSystem, ...] = (("global", (1.0, 1.0)), ("um", (mpp, mpp)))
        names = [str(n) for n in data.obs_names]
        _write_shapes(root, folder, SHAPES_NAME, names, *_make_tile_geometries(result), systems)
        if result.regions is not None and not result.regions.is_empty:
            parts = result.region_polygons
            region_names = [f"region{i + 1}" for i in range(len(parts))]
            _write_shapes(root, folder, REGIONS_NAME, region_names, parts, None, systems)
        if result.overview is not None:
            _write_overview(root, result, result.overview)
        _write_table(root, data)
    return Path(path)


def _make_tile_geometries(result: SavedResult) -> tuple[list[BaseGeometry], float | None]:
    """Squares, or points and the radius of circles, in level-0 px."""
    prediction = result.prediction
    x, y = prediction.target.spots.xy.T
    grid = prediction.target.grid
    if grid is None:
        diameter = prediction.spot_diameter_um / result.slide_record.mpp
        return list(shapely.points(x, y)), diameter / 2
    half = grid.pitch / 2
    return list(shapely.box(x - half, y - half, x + half, y + half)), None


def _write_shapes(
    root: zarr.Group,
    folder: Path,
    name: str,
    names: list[str],
    shapes: Sequence[BaseGeometry],
    radius: float | None,
    systems: Sequence[CoordinateSystem],
) -> None:
    """Write GeoParquet 1.0 with the names as index; points with a radius are circles."""
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    table = pd.DataFrame({"geometry": shapely.to_wkb(np.array(shapes, object))}, index=names)
    if radius is not None:
        table["radius"] = radius
    kinds = sorted({g.geom_type for g in shapes})
    geo_metadata = {
        "version": "1.0.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": kinds, "crs": None}},
    }
    arrow = pyarrow.Table.from_pandas(table)
    arrow = arrow.replace_schema_metadata(
        {**arrow.schema.metadata, b"geo": json.dumps(geo_metadata)}
    )
    group = root.require_group("shapes").create_group(name)
    group.attrs.update(
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": [
                _build_transformation(system, ("x", "y")) for system in systems
            ],
            "spatialdata_attrs": {"version": "0.3"},
        }
    )
    pyarrow.parquet.write_table(arrow, folder / "shapes" / name / "shapes.parquet")


def _write_overview(root: zarr.Group, result: SavedResult, overview: SlideOverview) -> None:
    """Write the image, axes c, y, x; x and y have scales that differ by rounding."""
    record = result.slide_record
    height, width = overview.rgb.shape[:2]
    x_scale, y_scale = record.width / width, record.height / height  # level-0 px per pixel
    systems = (
        ("global", (x_scale, y_scale)),
        ("um", (x_scale * record.mpp, y_scale * record.mpp)),
    )
    group = root.require_group("images").create_group(IMAGE_NAME)
    array = group.create_array(
        "s0",
        shape=(3, height, width),
        chunks=(3, min(height, IMAGE_CHUNK_PX), min(width, IMAGE_CHUNK_PX)),
        dtype="uint8",
        dimension_names=("c", "y", "x"),
    )
    array[:] = overview.rgb.transpose(2, 0, 1)
    axes = [{"name": a, "type": "channel" if a == "c" else "space"} for a in "cyx"]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    image: dict[str, Any] = {
        "name": f"/images/{IMAGE_NAME}",
        "axes": axes,
        "datasets": [{"path": "s0", "coordinateTransformations": [scale]}],
        "coordinateTransformations": [
            _build_transformation(system, ("c", "y", "x")) for system in systems
        ],
    }
    group.attrs.update(
        {
            "ome": {
                "version": "0.5-dev-spatialdata",
                "multiscales": [image],
                "omero": {"channels": [{"label": name} for name in "rgb"]},
            },
            "spatialdata_attrs": {"version": "0.3"},
            "napari_dkan": {"slide": vars(record)},
        }
    )


def _build_transformation(system: CoordinateSystem, axes: Sequence[str]) -> dict[str, Any]:
    """The transformation to a coordinate system in NGFF 0.5-dev."""
    name, (x, y) = system
    by_axis = {"x": x, "y": y, "c": 1.0}
    described = [
        {"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", "unit": "unit"}
        for a in axes
    ]
    return {
        "type": "scale",
        "scale": [by_axis[a] for a in axes],
        "input": {"name": "".join(axes), "axes": described},
        "output": {"name": name, "axes": described},
    }


def _write_table(root: zarr.Group, data: Any) -> None:
    import pandas as pd
    from anndata import settings
    from anndata.io import write_elem

    annotates = {"region": SHAPES_NAME, "region_key": "region", "instance_key": "instance_id"}
    data.obs["region"] = pd.Categorical([SHAPES_NAME] * data.n_obs)
    data.obs["instance_id"] = data.obs_names.to_numpy()
    data.uns["spatialdata_attrs"] = annotates
    tables = root.require_group("tables")
    # Without this setting anndata warns for each array.
    sharding = {"auto_shard_zarr_v3": False} if hasattr(settings, "auto_shard_zarr_v3") else {}
    try:
        with settings.override(**sharding):
            write_elem(tables, TABLE_NAME, data)
    except (TypeError, ValueError) as error:
        raise OutputError(f"The table could not be written as zarr: {error}.") from error
    kind: Mapping[str, str] = {"spatialdata-encoding-type": "ngff:regions_table", "version": "0.2"}
    tables[TABLE_NAME].attrs.update({**kind, **annotates})

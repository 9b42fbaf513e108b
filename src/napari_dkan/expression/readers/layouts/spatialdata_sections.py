"""Read sections from SpatialData stores: a table of counts, shapes with positions, an image.

Format: spatialdata's on-disk formats 0.1 and 0.2 (Zarr 2 and 3) since its shapes are Parquet;
the library itself is not needed. Coordinate transformations are those of the NGFF draft 0.5-dev
that SpatialData writes ("identity", "scale", "translation", "affine", "mapAxis", "sequence"),
read as 3 x 3 matrices on (x, y, 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....errors import SpotsError
from ....spatial.spots import Spots
from ...tables.spot_rows import drop_off_tissue, in_tissue_mask
from ...tables.table_files import array_coords_from_table, numeric_columns, read_table
from ..anndata_io import (
    check_sparse_indices,
    constant_obs_value,
    counts_from_anndata,
    infer_array,
    is_prediction_file,
)
from ..library_choice import list_libraries, select_library
from ..metadata import MPP_KEYS, find_value
from ..section_anndata import SectionEntry, SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


_MAX_SEQUENCE_DEPTH = 16
_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")


def transforms_to_systems(
    transformations: Sequence[Mapping[str, Any]], axes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the 3 x 3 matrices from an element to each of its coordinate systems.

    Parameters
    ----------
    transformations
        As in the attributes of the element.
    axes
        The axes of the element in their order, used where a transformation has none.

    Raises
    ------
    SpotsError
        A transformation is of an unknown type or malformed.
    """
    systems = {}
    for transform in transformations:
        name = str(dict(transform.get("output") or {}).get("name", "global"))
        try:
            systems[name] = _parse_transform(transform, list(axes), 0)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SpotsError(
                f"its coordinate transformation to {name} is malformed or of an unknown kind"
            ) from error
    return systems


def _parse_transform(
    transform: Mapping[str, Any], axes: list[str], depth: int
) -> NDArray[np.float64]:
    input_axes, output_axes = (_axis_names(transform.get(key), axes) for key in ("input", "output"))
    kind, matrix = transform["type"], np.eye(3)
    if kind == "identity":
        return matrix
    if kind in ("scale", "translation"):
        values = dict(zip(input_axes, map(float, transform[kind]), strict=True))
        for i, axis in enumerate("xy"):
            matrix[(i, i) if kind == "scale" else (i, 2)] = values[axis]
    elif kind == "affine":
        table = np.asarray(transform["affine"], dtype=float)
        n_inputs, n_outputs = len(input_axes), len(output_axes)
        if table.shape[1] != n_inputs + 1 or table.shape[0] not in (n_outputs, n_outputs + 1):
            raise ValueError("shape")
        columns = [input_axes.index("x"), input_axes.index("y"), -1]
        for i, axis in enumerate("xy"):
            matrix[i] = table[output_axes.index(axis)][columns]
    elif kind == "mapAxis":
        matrix = np.zeros((3, 3))
        matrix[2, 2] = 1
        for i, axis in enumerate("xy"):
            matrix[i, "xy".index(transform["mapAxis"][axis])] = 1
    elif kind == "sequence" and depth < _MAX_SEQUENCE_DEPTH:
        for part in transform["transformations"]:
            matrix = _parse_transform(part, input_axes, depth + 1) @ matrix
    else:
        raise ValueError(kind)
    if not np.isfinite(matrix).all():
        raise ValueError("not finite")
    return matrix


def _axis_names(system: Any, axes: list[str]) -> list[str]:
    if not isinstance(system, Mapping) or not system.get("axes"):
        return axes
    return [axis["name"] for axis in system["axes"]]


def apply_transform(matrix: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transform points (N, 2) by a 3 x 3 matrix."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


@dataclass(frozen=True)
class _SpatialElement:
    """An image or a set of shapes: its folder, attributes and transforms by coordinate system."""

    path: Path
    attributes: dict[str, Any]
    transforms: dict[str, NDArray[np.float64]]


def find_spatialdata_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find every set of shapes that a table annotates, in a store or in those of a folder."""
    stores = [root] if _is_store(root) else sorted(p for p in root.glob("*.zarr") if _is_store(p))
    sections = []
    for store in stores:
        regions = [
            (table, region)
            for table in _list_tables(store)
            if not is_prediction_file(table)
            for region in _list_annotated_regions(table)
        ]
        for table, region in regions:
            name = store.stem if len(regions) == 1 else f"{store.stem} {region}"
            libraries = _list_table_libraries(table, region)
            for library in libraries if len(libraries) > 1 else (None,):
                full_name = name if library is None else f"{name} {library}"
                read = partial(
                    read_spatialdata_section, store, table.name, region, full_name, library
                )
                sections.append(SectionEntry(full_name, "", "SpatialData", read))
    return tuple(sections)


def read_spatialdata_section(
    store: Path, table: str, region: str, name: str, library: str | None = None
) -> AnnData:
    """Read the spots of one region; see `build_section` for the result.

    Positions are the centres of the shapes, transformed to pixels of the finest image that shares
    a coordinate system with them. ``uns['image']`` is the OME-Zarr folder of that image. Spots
    that are not in tissue are left out.

    Raises
    ------
    SpotsError
        The region has no shapes, or their transformation is unknown, or its rows are of several
        sections and `library` names none of them.
    """
    data, _ = select_library(_read_table_rows(store, table, region), library, store)
    shapes = _read_shapes(store, region)
    image, to_px = _find_finest_image(store, shapes)
    xy, radius = _read_centres(shapes, data, store)
    spots = drop_off_tissue(
        Spots(
            apply_transform(to_px, xy),
            array_coords_from_table(data.obs, store),
            tuple(map(str, data.obs_names)),
        ),
        in_tissue_mask(data.obs, store),
    )
    if not len(spots):
        raise SpotsError(f"{store} holds no spots in tissue: in_tissue is 0 for all of {region}.")
    mpp = find_value(data.uns, MPP_KEYS)
    bin_um = bin_um_from_region_name(region)
    if bin_um is not None:
        spots = replace(spots, diameter_um=bin_um, pitch_um=bin_um)
    elif mpp is not None and radius is not None:
        scale = float(np.sqrt(abs(np.linalg.det(to_px[:2, :2]))))
        spots = replace(spots, diameter_um=2 * radius * scale * mpp)
    spots, notes = infer_array(spots, store)
    if image is None:
        notes["image_note"] = f"{store.name} holds no image in the coordinates of {region}"
    metadata = SectionMetadata(
        name,
        find_value(data.uns, ("patient",), str) or constant_obs_value(data, "patient"),
        "" if image is None else str(image),
        mpp,
        "SpatialData table",
        notes,
    )
    return build_section(counts_from_anndata(data, store), spots, metadata, store)


def bin_um_from_region_name(region: str) -> float | None:
    """Return the side in um of Visium HD bins, which is in their name: ``sample_square_008um``."""
    match = re.search(r"square_(\d+)um", region)
    return float(match.group(1)) if match else None


def _is_store(path: Path) -> bool:
    has_metadata = any((path / name).is_file() for name in _GROUP_FILES)
    return has_metadata and ((path / "tables").is_dir() or (path / "table").is_dir())


def _list_tables(store: Path) -> list[Path]:
    return sorted(p for n in ("tables", "table") for p in (store / n).glob("*") if _is_group(p))


def _is_group(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in _GROUP_FILES)


def _read_attributes(path: Path) -> dict[str, Any]:
    import zarr

    try:
        return dict(zarr.open_group(str(path), mode="r").attrs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpotsError(f"{path} is not a readable Zarr group; copy the store again.") from error


def _list_annotated_regions(table: Path) -> list[str]:
    """List the elements that a table annotates; a plain table annotates none."""
    regions = _read_attributes(table).get("region")
    return [regions] if isinstance(regions, str) else [str(name) for name in regions or ()]


def _list_table_libraries(table: Path, region: str) -> tuple[str, ...]:
    """List the sections that the rows of a region name; () if the table cannot be read."""
    import zarr
    from anndata.io import read_elem

    try:
        group = zarr.open_group(str(table), mode="r")
        obs = read_elem(group["obs"])
        return list_libraries(obs[obs[group.attrs["region_key"]] == region], {})
    except Exception:  # a damaged store; reading it reports what is wrong
        return ()


def _read_table_rows(store: Path, table: str, region: str) -> AnnData:
    import anndata

    path = next(t for t in _list_tables(store) if t.name == table)
    keys = _read_attributes(path)
    try:
        data = anndata.io.read_zarr(str(path))
        for part in (data.obsm, data.varm, data.obsp, data.varp):
            part.clear()  # not needed, and not checked
        check_sparse_indices(data)
        data = data[(data.obs[keys["region_key"]] == region).to_numpy()].copy()
        data.obs["_instance"] = data.obs[keys["instance_key"]]
    except Exception as error:  # zarr and anndata raise a dozen types for a damaged store
        raise SpotsError(f"{path} is not a readable table; write the store again.") from error
    if not data.n_obs:
        raise SpotsError(f"{path} holds no row for {region}; write the store again.")
    return data


def _read_shapes(store: Path, region: str) -> _SpatialElement:
    path = store / "shapes" / region
    if not (path / "shapes.parquet").is_file():
        if (store / "labels" / region).is_dir():
            raise SpotsError(
                f"{store}: {region} is a label image; only shapes (circles or polygons) say "
                "where spots lie. Convert the labels to circles and write the store again."
            )
        raise SpotsError(
            f"{store} has no shapes/{region}/shapes.parquet; write it again with spatialdata 0.2 "
            "or newer."
        )
    attributes = _read_attributes(path)
    axes = [str(a) for a in attributes.get("axes") or ("x", "y")]
    return _SpatialElement(path, attributes, _read_transforms(path, attributes, axes))


def _read_transforms(
    path: Path, element: dict[str, Any], axes: list[str]
) -> dict[str, NDArray[np.float64]]:
    try:
        return transforms_to_systems(element.get("coordinateTransformations") or (), axes)
    except SpotsError as error:
        raise SpotsError(f"{path}: {error}; write the store again.") from error


def _find_finest_image(
    store: Path, shapes: _SpatialElement
) -> tuple[Path | None, NDArray[np.float64]]:
    """Find the finest image in a coordinate system of the shapes, and the matrix to its px."""
    best: tuple[float, Path | None, NDArray[np.float64]] = (np.inf, None, np.eye(3))
    for path in sorted(p for p in (store / "images").glob("*") if _is_group(p)):
        attributes = _read_attributes(path)
        images = attributes.get("ome", attributes).get("multiscales") or [{}]
        axes = [a["name"] if isinstance(a, dict) else str(a) for a in images[0].get("axes") or ()]
        for system, of_image in _read_transforms(path, images[0], axes).items():
            area = abs(float(np.linalg.det(of_image[:2, :2])))
            if system in shapes.transforms and 1e-12 < area < best[0]:
                best = area, path, np.linalg.inv(of_image) @ shapes.transforms[system]
    return best[1], best[2]


def _read_centres(
    shapes: _SpatialElement, data: AnnData, store: Path
) -> tuple[NDArray[np.float64], float | None]:
    """Return centres (N, 2) in coordinates of the shapes, in the order of the table, and radius."""
    import shapely

    path = shapes.path / "shapes.parquet"
    table = read_table(path)
    if "geometry" not in table.columns:
        raise SpotsError(f"{path} has no column geometry; write the store again.")
    if not table.index.is_unique:
        raise SpotsError(
            f"{path} names {table.index[table.index.duplicated()][0]} twice; keep one."
        )
    rows = table.index.get_indexer(data.obs["_instance"])
    if (rows < 0).any():
        raise SpotsError(
            f"{path} has no shape for {int((rows < 0).sum())} spots of the table; write the store "
            "again."
        )
    table = table.iloc[rows]
    try:
        centres = shapely.centroid(shapely.from_wkb(table["geometry"].to_numpy()))
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise SpotsError(f"{path} holds no readable geometry; write the store again.") from error
    xy = np.column_stack([shapely.get_x(centres), shapely.get_y(centres)])
    if not np.isfinite(xy).all():
        raise SpotsError(f"{path} holds empty shapes; remove them.")
    radius = (
        float(np.median(numeric_columns(table, ["radius"], path))) if "radius" in table else None
    )
    return xy, radius

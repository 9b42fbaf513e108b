"""Read spot positions from her2st, Space Ranger, plain tables and h5ad."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import SpotsError
from ...spatial.spots import Spots
from ..array_geometry import ST_DIAMETER_UM, ST_PITCH_UM, VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
from .anndata_io import read_h5ad_file
from .metadata import find_value, read_scale_factors
from .table_files import (
    array_coords_from_table,
    check_unique_array_coords,
    names_from_array_coords,
    numeric_columns,
    read_table,
    round_array_coords,
)

_SPACE_RANGER_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col"]
_SPACE_RANGER_COLUMNS += ["pxl_row_in_fullres", "pxl_col_in_fullres"]
# Columns with pixel positions, best first; x and y are last, since in a her2st file they are array
# coordinates.
_PIXEL_COLUMNS = [
    ("pixel_x", "pixel_y"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("x", "y"),
    ("X", "Y"),
]


def read_spots(path: str | Path) -> Spots:
    """Read spot positions from a file.

    - her2st selection TSV (array ``x, y`` and ``pixel_x, pixel_y``): the 200 um array.
    - Space Ranger positions (CSV or Parquet): spots in tissue of the Visium array, or Visium HD's
      bins where the scale factors in the same folder state a bin size.
    - Any other table with x and y: centres in level-0 px.
    - h5ad: ``obsm['spatial']`` with ``obs['array_row'|'array_col']``.

    Raises
    ------
    SpotsError
        The file is none of these, is empty, or has two spots at one array position.
    """
    path = Path(path)
    spots = _read_h5ad_spots(path) if path.suffix == ".h5ad" else _read_spot_table(path)
    if not len(spots):
        raise SpotsError(f"{path} holds no spots.")
    check_unique_array_coords(spots, path)
    return spots


def _read_spot_table(path: Path) -> Spots:
    if path.name.startswith("tissue_positions"):
        table = read_table(path, header=path.name != "tissue_positions_list.csv")
        if "pxl_col_in_fullres" not in table.columns:
            if table.shape[1] != len(_SPACE_RANGER_COLUMNS):
                raise SpotsError(
                    f"{path} has {table.shape[1]} columns where Space Ranger writes 6; "
                    "use the file from the spatial folder."
                )
            table.columns = _SPACE_RANGER_COLUMNS
    else:
        table = read_table(path)
    table.columns = [str(c).strip() for c in table.columns]
    columns = next((pair for pair in _PIXEL_COLUMNS if set(pair) <= set(table.columns)), None)
    if columns is None:
        raise SpotsError(
            f"{path} has no columns x and y (or pixel_x, pixel_y) with spot centres in pixels; "
            f"its columns are {', '.join(map(str, table.columns[:6]))}."
        )
    for flag in ("selected", "in_tissue"):
        if flag in table.columns:
            table = table[numeric_columns(table, [flag], path)[:, 0] > 0]
    xy = numeric_columns(table, list(columns), path)
    if columns[0] == "pixel_x" and {"x", "y"} <= set(table.columns):
        array_coords = round_array_coords(numeric_columns(table, ["x", "y"], path))
        names = names_from_array_coords(array_coords)
        return Spots(xy, array_coords, names, ST_DIAMETER_UM, ST_PITCH_UM)
    if columns[0] == "pxl_col_in_fullres":
        visium_coords = array_coords_from_table(table, path)
        names = tuple(table["barcode"].astype(str)) if "barcode" in table.columns else ()
        bin_um = read_scale_factors(path.parent).bin_um
        return Spots(
            xy, visium_coords, names, bin_um or VISIUM_DIAMETER_UM, bin_um or VISIUM_PITCH_UM
        )
    names = next(
        (tuple(table[c].astype(str)) for c in ("name", "id", "barcode") if c in table.columns), ()
    )
    return Spots(xy, array_coords_from_table(table, path), names)


def _read_h5ad_spots(path: Path) -> Spots:
    data = read_h5ad_file(path, backed=True)
    try:
        if "spatial" not in data.obsm:
            raise SpotsError(f"{path} has no obsm['spatial'] with spot centres in pixels.")
        xy = np.asarray(data.obsm["spatial"], dtype=np.float64)[:, :2]
        array_coords = array_coords_from_table(data.obs, path)
        names = tuple(map(str, data.obs_names))
        diameter, pitch = (find_value(data.uns, (f"spot_{k}_um",)) for k in ("diameter", "pitch"))
    finally:
        data.file.close()
    return Spots(xy, array_coords, names, diameter, pitch)
